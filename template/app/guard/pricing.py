"""What a call costs, and the most that it can cost before it was made.

Money is an integer number of nano-dollars, rounded up.
"""

import unicodedata
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from app.errors import InvalidRequest, RequestTooLarge, UnsupportedParameter
from app.policy import Model, Price
from app.providers.base import MAXIMA, Usage

MILLION = 1_000_000
TEXT_PARTS = {"text": "text", "refusal": "refusal"}
# What stands around a message and its role: the templates in use write three to five tokens.
SEPARATOR_TOKENS = 8
# What a model reads beside the messages.
SCHEMAS = ("tools", "tool_choice", "response_format", "functions")


def cost(price: Price, usage: Usage) -> int:
    """The cost of `usage` in nano-dollars: tokens at their price per million, plus seconds."""
    tokens = usage.input_tokens * price.input + usage.output_tokens * price.output
    return _ceil(tokens, MILLION) + _ceil(usage.microseconds * price.second, MILLION)


def bound(model: Model, body: Mapping[str, Any]) -> Usage:
    """The most that a call with `body` can use.

    Text is bounded by its UTF-8 bytes, as it is or after NFKC normalisation, whichever are more:
    no tokenizer makes more tokens.
    Raises `RequestTooLarge` above the model's limits, `InvalidRequest` or `UnsupportedParameter`
    for what has no bound.
    """
    if model.usd_per_second is not None and model.max_seconds:
        return Usage(microseconds=model.max_seconds * MILLION)
    most = {"chat": _chat_bound, "embedding": _embedding_bound}[model.kind](model, body)
    if model.max_input_tokens is not None and most.input_tokens > model.max_input_tokens:
        raise RequestTooLarge(
            f"The input can be up to {most.input_tokens} tokens (its bytes count); "
            f"this model takes {model.max_input_tokens} at most. Send less.",
            param="messages" if model.kind == "chat" else "input",
        )
    return most


def _chat_bound(model: Model, body: Mapping[str, Any]) -> Usage:
    _require_functions(body)
    tokens = model.overhead_tokens
    tokens += sum(_message_tokens(model, message) for message in body["messages"])
    tokens += sum(text_bytes(_json(body[name])) for name in SCHEMAS if body.get(name))
    return Usage(tokens, output_limit(model, body) * int(body.get("n") or 1))


def _require_functions(body: Mapping[str, Any]) -> None:
    """Refuse the tools that a provider runs itself: what they cost is not declared."""
    choice = body.get("tool_choice")
    chosen = [choice] if isinstance(choice, dict) else []
    for name, tools in (("tools", body.get("tools") or []), ("tool_choice", chosen)):
        if any(tool.get("type") != "function" for tool in tools):
            message = f"{name}: only tools of type 'function' are offered."
            raise UnsupportedParameter(message, param=name)


def output_limit(model: Model, body: Mapping[str, Any]) -> int:
    """The most output tokens of one choice: the request's maximum, or the model's."""
    most = model.max_output_tokens
    asked = {name: body[name] for name in MAXIMA if body.get(name) is not None}
    if len(asked) > 1:
        # Some servers heed the one, some the other.
        raise InvalidRequest(f"{' and '.join(MAXIMA)}: give one of them.", param=MAXIMA[0])
    for name, limit in asked.items():
        if limit > most:
            raise RequestTooLarge(f"{name}: this model writes {most} at most.", param=name)
    return min(asked.values(), default=most)


def _message_tokens(model: Model, message: Mapping[str, Any]) -> int:
    content = message.get("content")
    tokens = SEPARATOR_TOKENS + text_bytes(message["role"])
    if rest := {name: message[name] for name in message if name not in {"content", "role"}}:
        tokens += text_bytes(_json(rest))
    if isinstance(content, str):
        return tokens + text_bytes(content)
    return tokens + sum(_part_tokens(model, part) for part in content or ())


def _part_tokens(model: Model, part: Mapping[str, Any]) -> int:
    kind = part.get("type")
    if kind in TEXT_PARTS:
        return text_bytes(str(part.get(TEXT_PARTS[kind], "")))
    if kind == "image_url" and model.tokens_per_image is not None:
        return model.tokens_per_image
    raise InvalidRequest(
        f"This model takes no content of type {kind!r} here: its cost is not declared.",
        param="messages",
    )


def _embedding_bound(model: Model, body: Mapping[str, Any]) -> Usage:
    return Usage(sum(model.overhead_tokens + size for size in _input_sizes(body["input"])))


def _input_sizes(given: str | list[Any]) -> Iterator[int]:
    """The bound of each input: a text, a list of token ids, or a list of either."""
    if isinstance(given, str):
        yield text_bytes(given)
    elif given and isinstance(given[0], int):
        yield len(given)
    else:
        for item in given:
            yield from _input_sizes(item)


def text_bytes(text: str) -> int:
    """The most tokens that any tokenizer makes of `text`."""
    if text.isascii():
        return len(text)
    # Some tokenizers normalise, which can lengthen a text as well as shorten it.
    return max(len(text.encode()), len(unicodedata.normalize("NFKC", text).encode()))


def _json(value: Any) -> str:
    return to_json(value).decode()


def _ceil(amount: int, unit: int) -> int:
    return -(-amount // unit)
