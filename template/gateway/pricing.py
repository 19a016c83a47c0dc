"""The cost of a call from its price and usage, and the upper bound of both before the call.

`prices.py` has the price lists, `response_pricing.py` the bounds for `/v1/responses`. Money is an
integer number of nano-dollars, rounded up.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import to_json

from gateway.counts import counted
from gateway.errors import InvalidRequest, RequestTooLarge, UnsupportedParameter
from gateway.policy import Model
from gateway.prices import Price, Tier
from gateway.providers.base import MAXIMA, Usage
from gateway.schemas.base import MAX_CHOICES, MAX_INPUTS
from gateway.text_size import text_bytes

MILLION = 1_000_000
# Prices are in quarters of a nano-dollar, so that 1.25 times a price is an integer.
SHARES = 4
# The types of text parts. Each has its text in the field of the same name.
TEXT_PARTS = ("text", "refusal")
MAX_NAME = 100
# The tokens around a message and its role: chat templates write three to five.
SEPARATOR_TOKENS = 8
# The fields that a model reads in addition to the messages.
SCHEMAS = ("tools", "tool_choice", "response_format", "functions", "function_call")
# The tools that the client runs. Those that the provider runs have other prices.
TOOL_TYPES = ("function", "custom")
CHOICE_TYPES = (*TOOL_TYPES, "allowed_tools")
# The parameters for the number of outputs, unless `outputs_parameter` names it.
OUTPUT_COUNTS = (
    *("num_outputs", "number_of_outputs", "num_images", "number_of_images", "max_images"),
    *("num_images_per_prompt", "num_samples", "batch_size", "batch_count", "n", "num_videos"),
)


def cost(price: Price, usage: Usage) -> int:
    """The cost of `usage` in nano-dollars: each part at its own line, the sum rounded up once.

    The whole input decides which tier counts for the whole request.
    """
    lines: Price | Tier = price
    for tier in price.tiers:
        if usage.input_tokens > tier.above:
            lines = tier
    amount = _input_cost(lines, usage) + SHARES * usage.output_tokens * lines.output
    return _whole(amount, price, usage)


def max_cost(price: Price, most: Usage) -> int:
    """The most that a call can cost which uses `most` at most: at the dearest line and tier."""
    ends = [tier.above for tier in price.tiers if tier.above < most.input_tokens]
    lists: list[Price | Tier] = [price, *price.tiers]
    dearest = max(
        tokens * max(_rates(lines)) + SHARES * most.output_tokens * lines.output
        for lines, tokens in zip(lists, [*ends, most.input_tokens], strict=False)
    )
    return _whole(dearest, price, most)


def _whole(tokens: int, price: Price, usage: Usage) -> int:
    """The cost in nano-dollars: of tokens, given in shares of a millionth, seconds and outputs."""
    seconds = usage.microseconds * price.second
    outputs = MILLION * usage.outputs * price.per_output
    return -(-(tokens + SHARES * (seconds + outputs)) // (SHARES * MILLION))


def _input_cost(lines: Price | Tier, usage: Usage) -> int:
    """The cost of the input, in shares. Parts beyond the input are reduced, the cheapest first."""
    if not (usage.cached_input_tokens or usage.cache_write_tokens):
        return SHARES * usage.input_tokens * lines.input
    plain, cached, written = _rates(lines)
    left, total = usage.input_tokens, 0
    parts = (cached, usage.cached_input_tokens), (written, usage.cache_write_tokens)
    for rate, tokens in sorted(parts, reverse=True):
        part = min(tokens, left)
        left, total = left - part, total + part * rate
    return total + left * plain


def _rates(lines: Price | Tier) -> tuple[int, int, int]:
    """The price of a new token, a cached one, and one written into the cache, in shares.

    Without a line, cached input costs as much as input, and a write 1.25 times that: OpenAI's rate
    from GPT-5.6 on (https://developers.openai.com/api/docs/guides/prompt-caching).
    """
    plain = SHARES * lines.input
    cached = plain if lines.cached_input is None else SHARES * lines.cached_input
    written = 5 * lines.input if lines.cache_write is None else SHARES * lines.cache_write
    return plain, cached, written


def max_usage(model: Model, body: Mapping[str, Any]) -> Usage:
    """The most that a call with `body` can use.

    The bound of a text is its UTF-8 bytes, unchanged or after NFC or NFKC, whichever are most: no
    tokenizer makes more tokens. Raises `RequestTooLarge` above the model's limits, and
    `InvalidRequest` or `UnsupportedParameter` for an input without a bound.
    """
    if model.usd_per_output is not None and model.max_outputs:
        return Usage(outputs=_outputs(model, model.max_outputs, body))
    if model.usd_per_second is not None and model.max_seconds:
        return Usage(microseconds=model.max_seconds * MILLION)
    return {"chat": _chat_max_usage, "embedding": _embedding_max_usage}[model.kind](model, body)


def largest_usage(model: Model) -> Usage:
    """The most that any call of `model` can use."""
    if model.usd_per_output is not None:
        return Usage(outputs=model.max_outputs or 0)
    if model.usd_per_second is not None:
        return Usage(microseconds=(model.max_seconds or 0) * MILLION)
    most = model.max_input_tokens or 0
    if model.kind == "chat":
        return Usage(most, MAX_CHOICES * model.max_output_tokens)
    texts = min(MAX_INPUTS * most, model.max_request_tokens or MAX_INPUTS * most)
    return Usage(MAX_INPUTS * model.overhead_tokens + texts)


def require_room(what: str, tokens: int, most: int | None, param: str) -> None:
    """Raise `RequestTooLarge` if `tokens` are above a limit of the model."""
    if most is not None and tokens > most:
        raise RequestTooLarge(
            f"{what} can be up to {counted(tokens, 'token')} (its bytes count); "
            f"this model takes {most} at most. Send less.",
            param=param,
        )


def within(what: str, sizes: Iterable[int], model: Model, param: str) -> int:
    """The sum of an input's parts and of the overhead that its provider adds.

    Raises `RequestTooLarge` at the first part that exceeds the model's limit.
    """
    total = model.overhead_tokens
    for size in sizes:
        total += size
        require_room(what, total, model.max_input_tokens, param)
    return total


def _outputs(model: Model, most: int, body: Mapping[str, Any]) -> int:
    """The most outputs of a request: the requested number, else `most`.

    With several of the parameters, their product: each may multiply the others.
    """
    names = (model.outputs_parameter,) if model.outputs_parameter else OUTPUT_COUNTS
    asked = {name: body[name] for name in names if body.get(name) is not None}
    for name, count in asked.items():
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            message = f"{name}: give a whole number from 1 to {most}."
            raise InvalidRequest(message, param=f"input.{name}")
    if asked and math.prod(asked.values()) > most:
        message = f"{' and '.join(asked)}: this model makes {most} at most for one request."
        raise RequestTooLarge(message, param=f"input.{next(iter(asked))}")
    return math.prod(asked.values()) if asked else most


def _chat_max_usage(model: Model, body: Mapping[str, Any]) -> Usage:
    _require_functions(body)
    tokens = within("The input", _chat_tokens(model, body), model, "messages")
    return Usage(tokens, output_limit(model, body) * int(body.get("n") or 1))


def _chat_tokens(model: Model, body: Mapping[str, Any]) -> Iterator[int]:
    for name in SCHEMAS:
        if body.get(name):
            yield size_of(model, json_of(body[name]))
    for place, message in enumerate(body["messages"]):
        yield _message_tokens(model, message, place)


def _require_functions(body: Mapping[str, Any]) -> None:
    """Refuse tools that a provider runs: their cost is not declared."""
    choice = body.get("tool_choice")
    chosen = [choice] if isinstance(choice, dict) else []
    given = ("tools", body.get("tools") or [], TOOL_TYPES), ("tool_choice", chosen, CHOICE_TYPES)
    for name, tools, types in given:
        if any(tool.get("type") not in types for tool in tools):
            message = f"{name}: only tools of the types {', '.join(types)} are offered."
            raise UnsupportedParameter(message, param=name)


def output_limit(model: Model, body: Mapping[str, Any]) -> int:
    """The most output tokens of one choice: the request's maximum, or the model's."""
    most = model.max_output_tokens
    asked = {name: body[name] for name in MAXIMA if body.get(name) is not None}
    if len(asked) > 1:
        # Some servers use the one, some the other.
        raise InvalidRequest(f"{' and '.join(MAXIMA)}: give one of them.", param=MAXIMA[0])
    for name, limit in asked.items():
        if limit > most:
            raise RequestTooLarge(f"{name}: this model writes {most} at most.", param=name)
    return min(asked.values(), default=most)


def _message_tokens(model: Model, message: Mapping[str, Any], place: int) -> int:
    """The bound of a message. All fields count, also those that are not sent."""
    content = message.get("content", "")
    tokens = SEPARATOR_TOKENS + len(message["role"])
    tokens += _rest_tokens(model, message, "role", "content")
    if isinstance(content, str):
        return tokens + size_of(model, content)
    if message["role"] == "assistant":
        return tokens + _answer_tokens(model, content)
    return tokens + sum(
        _part_tokens(model, part, place, index) for index, part in enumerate(content)
    )


def _answer_tokens(model: Model, content: Any) -> int:
    """The bound of an assistant's content in any form. The adapters send only its text."""
    if not isinstance(content, list):
        return size_of(model, json_of(content))
    texts = ((part, _text_tokens(model, part)) for part in content)
    return sum(
        size_of(model, json_of(part)) if tokens is None else tokens for part, tokens in texts
    )


def _part_tokens(model: Model, part: Mapping[str, Any], *path: int) -> int:
    if (tokens := _text_tokens(model, part)) is not None:
        return tokens
    kind = part.get("type")
    if kind == "image_url" and model.tokens_per_image is not None:
        return model.tokens_per_image + _rest_tokens(model, part, "type", "image_url")
    message, index = path
    raise InvalidRequest(
        f"This model takes no content of type {str(kind)[:MAX_NAME]!r} here: its cost is not "
        "declared.",
        param=f"messages.{message}.content.{index}",
    )


def _text_tokens(model: Model, part: Any) -> int | None:
    """The bound of a text part; None for another type."""
    kind = part.get("type") if isinstance(part, dict) else None
    if kind not in TEXT_PARTS or not isinstance(text := part.get(kind), str):
        return None
    rest = _rest_tokens(model, part, "type", kind) if len(part) > 2 else 0
    return size_of(model, text) + rest


def _rest_tokens(model: Model, holder: Mapping[str, Any], *counted: str) -> int:
    """The bound of the fields that are not in `counted`."""
    rest = {name: holder[name] for name in holder if name not in counted}
    return size_of(model, json_of(rest)) if rest else 0


def _embedding_max_usage(model: Model, body: Mapping[str, Any]) -> Usage:
    sizes = list(_input_sizes(model, body["input"]))
    require_room("A text of the input", max(sizes, default=0), model.max_input_tokens, "input")
    require_room("The input", sum(sizes), model.max_request_tokens, "input")
    return Usage(sum(model.overhead_tokens + size for size in sizes))


def _input_sizes(model: Model, given: str | list[Any]) -> Iterator[int]:
    """The bound of each input. `given` is a text, a list of token ids, or a list of either."""
    if isinstance(given, str):
        yield size_of(model, given)
    elif given and isinstance(given[0], int):
        yield len(given)
    else:
        for item in given:
            yield from _input_sizes(model, item)


def size_of(model: Model, text: str) -> int:
    """The bound of a text in tokens."""
    return text_bytes(text, model.max_input_tokens)


def json_of(value: Any) -> str:
    """`value` as JSON text."""
    return to_json(value).decode()
