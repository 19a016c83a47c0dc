"""The real clients of today work against a service as it is generated.

The service has the default answers and runs as its user starts it; OpenAI is the simulator. A
program of tests/clients/ is one client: it prints what came of each of its cases.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from environments import environment_with, packages_of_node
from processes import clean_environment, run
from projects import installed, requirements_of, serving, simulating
from servers import add_plan
from working_tree import ROOT

pytestmark = pytest.mark.slow(minutes=0.3)

CLIENTS = ROOT / "tests/clients"
CLIENT_SECONDS = 300
SAID = "You said: one two three"
TOLD = ["You said: 21 degrees in Oslo", "You said: 21 degrees in Rome"]
FILLED = {"city": "three", "days": 1}
DIMENSIONS = [8, 8]
UNAUTHORIZED = "AuthenticationError invalid_credentials"
LIMITED = "RateLimitError rate_limit_exceeded"
OVERFLOWN = "BadRequestError context_length_exceeded"

BASIC = {"chat": SAID, "stream": SAID, "tools": TOLD, "structured": FILLED}
ERRORS = {"unauthorized": UNAUTHORIZED, "rate_limited": LIMITED, "overflow": OVERFLOWN}
RESPONSES = {"responses_chat": SAID, "responses_stream": SAID, "responses_tools": TOLD}
SHORT = ["You said: one", "length"]
WHOLE = [SAID, "stop"]

OFFICIAL = (
    {**BASIC, **ERRORS, **RESPONSES}
    | {"max_tokens": SHORT, "embeddings": [2, True]}
    | {"responses_structured": FILLED, "responses_max_tokens": [SAID, "completed"]}
    | {"responses_stream": [SAID, "response.completed"], "responses_overflow": OVERFLOWN}
)
# One way in which the AI SDK asks.
SDK = (
    {**BASIC, "tools_in_a_stream": TOLD, "max_tokens": WHOLE, "embeddings": DIMENSIONS}
    | {"unauthorized": "AI_APICallError 401 invalid_credentials"}
    | {"rate_limited": "AI_APICallError 429 rate_limit_exceeded"}
    | {"overflow": "AI_APICallError 400 context_length_exceeded"}
)
AGENTS = {**BASIC, **ERRORS, "tools_in_a_stream": TOLD, "max_tokens": SAID}

# What each program prints.
EXPECTED: dict[str, dict[str, Any]] = {
    "use_agents.py": AGENTS | {f"responses_{name}": value for name, value in AGENTS.items()},
    "use_ai_sdk.mjs": {
        f"{way}{name}": value for way in ("", "chat_", "responses_") for name, value in SDK.items()
    },
    "use_huggingface.py": {
        "chat": SAID,
        "stream": [SAID, 5],
        "tools": TOLD,
        "max_tokens": SHORT,
        "unauthorized": "HfHubHTTPError of HTTPStatusError 401",
        "rate_limited": "HfHubHTTPError of HTTPStatusError 429",
        "overflow": "BadRequestError of HTTPStatusError 400",
    },
    "use_instructor.py": {
        "structured": FILLED,
        "structured_by_a_tool": FILLED,
        "stream": FILLED,
        "max_tokens": FILLED,
        **{name: f"InstructorRetryException of {error}" for name, error in ERRORS.items()},
    },
    "use_langchain.py": {
        **BASIC,
        **RESPONSES,
        "tools_in_a_stream": TOLD,
        "responses_tools_in_a_stream": TOLD,
        "structured_by_a_tool": FILLED,
        "max_tokens": SHORT[0],
        "embeddings": DIMENSIONS,
        "unauthorized": f"OpenAI{UNAUTHORIZED}",
        "rate_limited": f"OpenAI{LIMITED}",
        "overflow": "OpenAIContextOverflowError context_length_exceeded",
        "responses_structured": FILLED,
        "responses_overflow": "OpenAIContextOverflowError context_length_exceeded",
    },
    "use_litellm.py": {
        **BASIC,
        "tools_in_a_stream": TOLD,
        "max_tokens": SHORT,
        "embeddings": DIMENSIONS,
        "unauthorized": "AuthenticationError 401",
        "rate_limited": "RateLimitError 429",
        "overflow": "ContextWindowExceededError 400",
        "responses_chat": SAID,
        "responses_stream": SAID,
        "responses_overflow": "ContextWindowExceededError 400",
    },
    "use_llm.py": {
        **BASIC,
        **ERRORS,
        **RESPONSES,
        "max_tokens": SHORT[0],
        "embeddings": DIMENSIONS,
        "responses_overflow": OVERFLOWN,
    },
    "use_openai.mjs": OFFICIAL | {"tools_by_the_runner": TOLD[0]},
    "use_openai.py": OFFICIAL
    | {
        "models": True,
        "stream_with_usage": [[], 5],
        "tools_in_a_stream": TOLD[:1],
        "responses_tools_in_a_stream": TOLD[:1],
        "structured_sent_back": SAID,
        "responses_structured_sent_back": SAID,
        "parameters": SAID,
        "responses_parameters": SAID,
        "max_completion_tokens": SHORT,
        "overflow_of_a_stream": OVERFLOWN,
        "responses_unauthorized": UNAUTHORIZED,
        "responses_rate_limited": LIMITED,
    },
    "use_pydantic_ai.py": {
        **BASIC,
        **RESPONSES,
        "tools_in_a_stream": TOLD,
        "responses_tools_in_a_stream": TOLD,
        "structured_by_a_tool": FILLED,
        "max_tokens": SHORT[0],
        "embeddings": DIMENSIONS,
        "unauthorized": f"ModelAuthenticationError of {UNAUTHORIZED}",
        "rate_limited": f"ModelRateLimitError of {LIMITED}",
        "overflow": f"ModelContextWindowExceededError of {OVERFLOWN}",
        "responses_structured": FILLED,
        "responses_overflow": f"ModelContextWindowExceededError of {OVERFLOWN}",
    },
}


@dataclass(frozen=True)
class Served:
    """A service, and the keys of two users, of whom one may ask once a minute."""

    url: str
    key: str
    limited_key: str


@pytest.fixture(scope="module")
def served(render: Render) -> Iterator[Served]:
    """Run a service whose OpenAI is the simulator."""
    directory = render()
    python = environment_with(requirements_of(directory)) / "bin/python"
    with ExitStack() as stack:
        project = stack.enter_context(installed(directory, python))
        url = stack.enter_context(simulating(project))
        _add_fields(url)
        openai = {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": "sk-simulator"}
        project = replace(project, settings={**project.settings, **openai})
        add_plan(project, "clients", 6000)
        add_plan(project, "limited", 1)
        service = stack.enter_context(serving(project, "--migrate"))
        served = Served(
            f"http://127.0.0.1:{service.port}/v1",
            project.create_user("ada@example.com", "clients"),
            project.create_user("bob@example.com", "limited"),
        )
        yield served


def _add_fields(url: str) -> None:
    """Every message of the simulator gets the fields that other servers add."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    faults = [{"kind": "extra_fields", "times": None}]
    connection.request("POST", "/_control/faults", json.dumps(faults))
    assert connection.getresponse().status == 204
    connection.close()


@pytest.fixture
def command(program: str, tmp_path: Path) -> list[str]:
    """Install what a program needs, and say how it is run."""
    if program.endswith(".mjs"):
        return _command_of_node(program, tmp_path)
    pins = "instructor.txt" if program == "use_instructor.py" else "requirements.txt"
    lines = (CLIENTS / pins).read_text(encoding="utf-8").splitlines()
    environment = environment_with(line for line in lines if not line.startswith("#"))
    return [str(environment / "bin/python"), str(CLIENTS / program)]


def _command_of_node(program: str, directory: Path) -> list[str]:
    """Run it where it finds its packages, which are looked for beside a program."""
    if not shutil.which("npm"):
        assert os.environ.get("CI") != "true", "npm is missing."
        pytest.skip("npm is missing: apt-get install nodejs npm")
    for path in CLIENTS.glob("*.mjs"):
        shutil.copy(path, directory)
    (directory / "node_modules").symlink_to(packages_of_node(CLIENTS / "package.json"))
    return ["node", str(directory / program)]


@pytest.mark.parametrize("program", EXPECTED)
def test_a_client_works_as_it_is(program: str, command: list[str], served: Served) -> None:
    """Chats, streams, tools, structured answers, embeddings, and its own errors."""
    printed = run(command, ROOT, clean_environment() | _settings(served), CLIENT_SECONDS)
    results: Mapping[str, Any] = json.loads(printed.splitlines()[-1])
    assert results == EXPECTED[program]


def _settings(served: Served) -> dict[str, str]:
    """Tell a program where the service is, and let it ask nothing of other hosts."""
    return {
        "BASE_URL": served.url,
        "API_KEY": served.key,
        "LIMITED_KEY": served.limited_key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def test_every_program_is_run() -> None:
    """No client was added unnoticed."""
    programs = {path.name for path in CLIENTS.glob("use_*")}
    assert programs == set(EXPECTED)
