"""Reduces the messages of a chat to the fields that a server accepts.

Clients send an assistant's message back as they received it, with fields that OpenAI does not
have. Some servers refuse such fields, and some need them.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypeGuard
from urllib.parse import urlsplit

from pydantic_core import to_json

from gateway.providers.base import Body
from gateway.providers.parameters import is_usual_cache

# The fields of a message in OpenAI's format, by its role.
PLAIN = frozenset({"role", "content"})
FIELDS = {
    "developer": PLAIN | {"name"},
    "function": PLAIN | {"name"},
    "system": PLAIN | {"name"},
    "tool": PLAIN | {"name", "tool_call_id"},
    "user": PLAIN | {"name"},
}
CALLS = frozenset({"tool_calls", "function_call"})
# The types of text parts. Each has its text in the field of the same name.
TEXT_PARTS = ("text", "refusal")
BREAKPOINT = "prompt_cache_breakpoint"
NOTHING: frozenset[str] = frozenset()
# OpenAI's own fields, which other servers may refuse.
OWN = frozenset({"refusal", BREAKPOINT})

# The further fields that a server needs back, by a word in its name, its host or its model's name.
# The first match decides: on Groq, DeepSeek's models refuse `reasoning_content`.
NEEDED_BACK: Mapping[str, frozenset[str]] = {
    # "property 'reasoning_content' is unsupported": Groq refuses every unknown field.
    "groq": NOTHING,
    # 400 without the reasoning of a turn that calls a tool:
    # https://api-docs.deepseek.com/guides/thinking_mode
    "deepseek": frozenset({"reasoning_content"}),
    # The same: https://platform.moonshot.ai/docs/guide/use-kimi-k2-thinking-model
    "moonshot": frozenset({"reasoning_content"}),
    "kimi": frozenset({"reasoning_content"}),
    # Signatures of reasoning, without which Gemini and Claude refuse a tool loop:
    # https://openrouter.ai/docs/guides/best-practices/reasoning-tokens
    "openrouter": frozenset({"reasoning", "reasoning_details"}),
    # `thought_signature`, in a tool call: https://ai.google.dev/gemini-api/docs/thought-signatures
    "generativelanguage": frozenset({"extra_content"}),
    "gemini": frozenset({"extra_content"}),
    # Parts of the type `thinking`: https://docs.mistral.ai/capabilities/reasoning
    "mistral": frozenset({"thinking"}),
    "magistral": frozenset({"thinking"}),
}


@cache
def needed_back(server: str, base_url: str, model: str) -> frozenset[str]:
    """The fields and types of parts that a server needs back in addition to OpenAI's format."""
    host = urlsplit(base_url).hostname or ""
    for place in (server, host, model):
        for word, fields in NEEDED_BACK.items():
            if word in place.lower():
                return fields
    return NOTHING


def messages_sent(messages: list[Body], more: frozenset[str] = NOTHING) -> list[Body]:
    """The messages with the fields of OpenAI's format; an assistant's also with those in `more`."""
    return [
        message
        if message.keys() == PLAIN and type(message["content"]) is str
        else _message_sent(message, more)
        for message in messages
    ]


def _message_sent(message: Body, more: frozenset[str]) -> Body:
    if message["role"] == "assistant":
        return _answer_sent(message, more)
    sent = {name: value for name, value in message.items() if name in FIELDS[message["role"]]}
    if isinstance(message.get("content"), list):
        sent["content"] = [_part_sent(part, more) for part in message["content"]]
    return sent


def _part_sent(part: Body, more: frozenset[str]) -> Body:
    sent = {name: part[name] for name in ("type", part["type"])}
    if part["type"] == "image_url":
        image = sent["image_url"].items()
        sent["image_url"] = {name: value for name, value in image if value is not None}
    if BREAKPOINT in more and is_usual_cache(part.get(BREAKPOINT)):
        sent[BREAKPOINT] = part[BREAKPOINT]
    return sent


def _answer_sent(message: Body, more: frozenset[str]) -> Body:
    """An assistant's message in OpenAI's format, from any provider's format."""
    sent = {field: message[field] for field in more if field in message}
    if not isinstance(sent.get("refusal", ""), str):
        del sent["refusal"]
    if isinstance(name := message.get("name"), str):
        sent["name"] = name
    if calls := list(_calls_sent(message.get("tool_calls"), more)):
        sent["tool_calls"] = calls
    if _is_called(function := message.get("function_call")):
        sent["function_call"] = _with_arguments(function)
    content = _content_sent(message.get("content"), more)
    if content is None and not sent.keys() & CALLS:
        # OpenAI requires content in a message without calls.
        refusal = message.get("refusal")
        content = refusal if isinstance(refusal, str) and "refusal" not in more else ""
    with_content = {} if content is None else {"content": content}
    return {"role": "assistant", **with_content, **sent}


def _content_sent(content: Any, more: frozenset[str]) -> str | list[Body] | None:
    """The content of an answer: a text, or the parts that can be sent. None if it has neither."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return [sent for part in parts if (sent := _answer_part_sent(part, more))] or None


def _answer_part_sent(part: Any, more: frozenset[str]) -> Body | None:
    """A part of an answer, or None if the server does not read its type."""
    given: Body = part if isinstance(part, dict) else {"type": "text", "text": part}
    kind = given.get("type")
    if kind in TEXT_PARTS and isinstance(text := given.get(kind), str):
        return {"type": kind, kind: text} if kind in more else {"type": "text", "text": text}
    is_needed = isinstance(kind, str) and kind in more and kind not in TEXT_PARTS
    return given if is_needed else None


def _calls_sent(calls: Any, more: frozenset[str]) -> Iterator[Body]:
    """The tool calls that have a name."""
    for call in calls if isinstance(calls, list) else ():
        given = call if isinstance(call, dict) else {}
        kept = {name: given[name] for name in {"id"} | more if given.get(name) is not None}
        if _is_called(function := given.get("function")):
            yield {**kept, "type": "function", "function": _with_arguments(function)}
        elif _is_called(custom := given.get("custom")):
            yield {**kept, "type": "custom", "custom": custom}


def _is_called(tool: Any) -> TypeGuard[Body]:
    return isinstance(tool, dict) and isinstance(tool.get("name"), str)


def _with_arguments(function: Body) -> Body:
    """A function call with its arguments as JSON text; some servers send them as an object."""
    given = function.get("arguments")
    if isinstance(given, str):
        return function
    return {**function, "arguments": "{}" if given is None else to_json(given).decode()}
