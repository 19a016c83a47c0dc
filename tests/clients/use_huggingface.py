"""Hugging Face's client; structured answers it asks for in a format of its own."""

import json
from typing import Any

from huggingface_hub import InferenceClient
from report import (
    FIRST,
    KEY,
    LIMITED_KEY,
    MESSAGES,
    MODEL,
    OVERFLOW,
    SECOND,
    TOOL,
    URL,
    case,
    get_weather,
    raised,
    run,
)

CLIENTS = {key: InferenceClient(base_url=URL, api_key=key) for key in (KEY, LIMITED_KEY, "wrong")}


def ask(messages: list[Any], key: str = KEY, **options: Any) -> Any:
    """Ask for a chat."""
    return CLIENTS[key].chat_completion(messages, model=MODEL, **options)


@case
def chat() -> Any:
    return ask(MESSAGES).choices[0].message.content


@case
def stream() -> list[Any]:
    *chunks, last = ask(MESSAGES, stream=True, stream_options={"include_usage": True})
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    return [text, last.usage.completion_tokens]


@case
def tools() -> list[Any]:
    """Two turns; each of the service's messages is sent back as it came."""
    messages: list[Any] = []
    for text in (FIRST, SECOND):
        messages.append({"role": "user", "content": text})
        message = ask(messages, tools=[TOOL]).choices[0].message
        messages.append(message)
        for call in message.tool_calls or ():
            told = get_weather(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})
        messages.append(ask(messages, tools=[TOOL]).choices[0].message)
    return [messages[3].content, messages[7].content]


@case
def max_tokens() -> list[Any]:
    choice = ask(MESSAGES, max_tokens=3).choices[0]
    return [choice.message.content, choice.finish_reason]


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
