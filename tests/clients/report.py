"""What the programs here share: each case runs by itself, and all results are printed as JSON."""

import asyncio
import inspect
import json
import os
import sys
import traceback
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Case = TypeVar("Case", bound=Callable[[], Any])

URL = os.environ["BASE_URL"]
KEY = os.environ["API_KEY"]
# The key of a user who may ask once a minute.
LIMITED_KEY = os.environ["LIMITED_KEY"]
MODEL = "openai/gpt-5-mini"
EMBEDDING_MODEL = "openai/text-embedding-3-small"

TEXT = "one two three"
MESSAGES: list[Any] = [{"role": "user", "content": TEXT}]
# The provider, which is the simulator, has a context of 20,000 words.
TOO_LONG = "a " * 20_001
OVERFLOW: list[Any] = [{"role": "user", "content": TOO_LONG}]
# The simulator calls a tool that a user names, with the last word, and repeats its result.
FIRST, SECOND = "get_weather of Oslo", "get_weather of Rome"
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": CITY}}
FUNCTION: Any = {"type": "function", "name": "get_weather", "parameters": CITY, "strict": False}

_cases: dict[str, Callable[[], Any]] = {}


def case(function: Case) -> Case:
    """Let a function, asynchronous or not, be a case: it returns what JSON can write."""
    _cases[function.__name__] = function
    return function


def get_weather(city: str) -> str:
    """Tell the weather of a city."""
    return f"21 degrees in {city}"


def raised(function: Callable[[], Any]) -> str:
    """Name the error that a call raises, and the code in it.

    It is made twice: a user who may ask once a minute may be let through.
    """
    try:
        function()
        function()
    except Exception as error:
        return _named(error)
    return "no error"


async def raised_by(function: Callable[[], Awaitable[Any]]) -> str:
    """Name the error that an asynchronous call raises, and the code in it."""
    try:
        await function()
        await function()
    except Exception as error:
        return _named(error)
    return "no error"


def run() -> None:
    """Run all cases in one event loop, and print what each returned, or how it failed."""
    with asyncio.Runner() as runner:
        results = {name: _result(runner, function) for name, function in _cases.items()}
    # Clients print, too: the results are the last line.
    sys.stdout.write(f"\n{json.dumps(results)}\n")


def _named(error: BaseException) -> str:
    """Name its type and its code; one without a code may have one as its cause."""
    name = type(error).__name__
    if code := getattr(error, "code", None):
        return f"{name} {code}"
    if error.__cause__:
        return f"{name} of {_named(error.__cause__)}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"{name} {status}" if status else name


def _result(runner: asyncio.Runner, function: Callable[[], Any]) -> Any:
    try:
        result = function()
        return runner.run(result) if inspect.iscoroutine(result) else result
    except Exception as error:
        traceback.print_exc()
        return f"failed: {type(error).__name__}: {error}"[:500]
