"""The upper bound of the usage of a request of `/v1/responses`."""

from collections.abc import Iterator, Mapping
from typing import Any

from gateway.errors import InvalidRequest, RequestTooLarge
from gateway.policy import Model
from gateway.pricing import SEPARATOR_TOKENS, json_of, max_usage, size_of, within
from gateway.providers.base import Usage

# The fields that a model reads in addition to the input.
SCHEMAS = ("tools", "tool_choice", "text")


def response_max_usage(model: Model, body: Mapping[str, Any]) -> Usage:
    """The bound by the bytes of all that `body` holds, as of a chat.

    Raises `RequestTooLarge` above the model's limits, `InvalidRequest` for what has no bound.
    """
    if model.usd_per_second is not None or model.usd_per_output is not None:
        return max_usage(model, body)
    tokens = within("The input", _input_tokens(model, body), model, "input")
    return Usage(tokens, _output_limit(model, body))


def _output_limit(model: Model, body: Mapping[str, Any]) -> int:
    most, name = model.max_output_tokens, "max_output_tokens"
    asked = body.get(name) or most
    if asked > most:
        raise RequestTooLarge(f"{name}: this model writes {most} at most.", param=name)
    return int(asked)


def _input_tokens(model: Model, body: Mapping[str, Any]) -> Iterator[int]:
    if body.get("instructions"):
        yield SEPARATOR_TOKENS + len("developer") + size_of(model, body["instructions"])
    for name in SCHEMAS:
        if body.get(name):
            yield size_of(model, json_of(body[name]))
    given = body.get("input")
    if isinstance(given, str):
        yield SEPARATOR_TOKENS + len("user") + size_of(model, given)
    for place, item in enumerate(given if isinstance(given, list) else ()):
        yield from _item_tokens(model, item, f"input.{place}")


def _item_tokens(model: Model, item: Mapping[str, Any], path: str) -> Iterator[int]:
    """The bounds of an item: texts by their bytes, other fields by the bytes of their JSON."""
    yield SEPARATOR_TOKENS
    is_given = item.get("role") != "assistant" and item.get("type") != "reasoning"
    for name, value in item.items():
        if is_given and name in {"content", "output"} and isinstance(value, list):
            for number, part in enumerate(value):
                yield _part_tokens(model, part, f"{path}.{name}.{number}")
        elif isinstance(value, str):
            yield size_of(model, value)
        elif value is not None:
            yield size_of(model, name) + size_of(model, json_of(value))


def _part_tokens(model: Model, part: Mapping[str, Any], path: str) -> int:
    if part.get("type") != "input_image":
        return size_of(model, json_of(part))
    if model.tokens_per_image is None:
        raise InvalidRequest(
            "This model takes no images here: their cost is not declared.", param=f"{path}.type"
        )
    return model.tokens_per_image
