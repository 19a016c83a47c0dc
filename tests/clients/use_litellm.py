"""LiteLLM as a client, which takes the service for OpenAI."""

import json
from collections.abc import Callable
from typing import Any

import litellm
from pydantic import BaseModel
from report import (
    EMBEDDING_MODEL,
    FIRST,
    KEY,
    LIMITED_KEY,
    MESSAGES,
    MODEL,
    OVERFLOW,
    SECOND,
    TEXT,
    TOO_LONG,
    TOOL,
    URL,
    case,
    get_weather,
    raised,
    run,
)


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


def ask(messages: list[Any], key: str = KEY, **options: Any) -> Any:
    """Ask for a chat."""
    return litellm.completion(
        model=f"openai/{MODEL}",
        messages=messages,
        api_base=URL,
        api_key=key,
        max_retries=0,
        **options,
    )


@case
def chat() -> Any:
    return ask(MESSAGES).choices[0].message.content


@case
def stream() -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in ask(MESSAGES, stream=True))


def two_turns(answer: Callable[[list[Any]], Any]) -> list[Any]:
    """Two turns; each of the service's messages is sent back as it came."""
    messages: list[Any] = []
    for text in (FIRST, SECOND):
        messages.append({"role": "user", "content": text})
        message = answer(messages).choices[0].message
        messages.append(message)
        for call in message.tool_calls or ():
            told = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
        messages.append(answer(messages).choices[0].message)
    return [messages[3].content, messages[7].content]


@case
def tools() -> list[Any]:
    return two_turns(lambda messages: ask(messages, tools=[TOOL]))


@case
def tools_in_a_stream() -> list[Any]:
    """The messages are those that the client puts together of the chunks."""

    def answer(messages: list[Any]) -> Any:
        return litellm.stream_chunk_builder(list(ask(messages, tools=[TOOL], stream=True)))

    return two_turns(answer)


@case
def structured() -> Any:
    return json.loads(ask(MESSAGES, response_format=Weather).choices[0].message.content)


@case
def max_tokens() -> list[Any]:
    choice = ask(MESSAGES, max_tokens=3).choices[0]
    return [choice.message.content, choice.finish_reason]


@case
def embeddings() -> list[int]:
    answer = litellm.embedding(
        model=f"openai/{EMBEDDING_MODEL}", input=[TEXT, "four"], api_base=URL, api_key=KEY
    )
    return [len(item["embedding"]) for item in answer.data]


@case
def unauthorized() -> str:
    return raised(lambda: ask(MESSAGES, "wrong"))


@case
def rate_limited() -> str:
    return raised(lambda: ask(MESSAGES, LIMITED_KEY))


@case
def overflow() -> str:
    return raised(lambda: ask(OVERFLOW))


def respond(given: str, **options: Any) -> Any:
    """Ask for a response."""
    return litellm.responses(
        model=f"openai/{MODEL}", input=given, api_base=URL, api_key=KEY, max_retries=0, **options
    )


@case
def responses_chat() -> str:
    return str(respond(TEXT).output_text)


@case
def responses_stream() -> str:
    events = list(respond(TEXT, stream=True))
    return "".join(each.delta for each in events if each.type == "response.output_text.delta")


@case
def responses_overflow() -> str:
    return raised(lambda: respond(TOO_LONG))


if __name__ == "__main__":
    run()
