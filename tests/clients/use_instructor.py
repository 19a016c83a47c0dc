"""Instructor, whose answers are all structured: by a tool, as JSON, and piece by piece."""

from typing import Any

import instructor
import openai
from pydantic import BaseModel
from report import KEY, LIMITED_KEY, MESSAGES, MODEL, OVERFLOW, URL, case, raised, run


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


def asking(key: str = KEY, mode: instructor.Mode = instructor.Mode.TOOLS) -> Any:
    """Make the client of a user, and let it not try again."""
    client = openai.OpenAI(base_url=URL, api_key=key, max_retries=0)
    return instructor.from_openai(client, mode=mode).chat.completions


def ask(messages: list[Any], *client: Any, **options: Any) -> Any:
    """Ask for the weather once."""
    create = asking(*client).create
    given = {"model": MODEL, "messages": messages, "response_model": Weather, "max_retries": 0}
    return create(**given, **options)


@case
def structured_by_a_tool() -> Any:
    return ask(MESSAGES).model_dump()


@case
def structured() -> Any:
    return ask(MESSAGES, KEY, instructor.Mode.JSON_SCHEMA).model_dump()


@case
def stream() -> Any:
    given = {"model": MODEL, "messages": MESSAGES, "response_model": Weather}
    *_, last = asking().create_partial(**given)
    return last.model_dump()


@case
def max_tokens() -> Any:
    return ask(MESSAGES, max_tokens=100).model_dump()


@case
def unauthorized() -> str:
    return raised(lambda: ask(MESSAGES, "wrong"))


@case
def rate_limited() -> str:
    return raised(lambda: ask(MESSAGES, LIMITED_KEY))


@case
def overflow() -> str:
    return raised(lambda: ask(OVERFLOW))


if __name__ == "__main__":
    run()
