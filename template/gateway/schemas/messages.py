"""The messages of a chat request.

An assistant's message is accepted unchecked: it is a model's answer, with its provider's fields.
The content of other roles must have a form whose cost can be bounded. Fields that OpenAI does not
have are accepted in every role; the adapters drop those that a server does not read.
"""

from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, Field, ValidationError, WithJsonSchema
from pydantic_core import InitErrorDetails

from gateway.schemas.base import Objects

MAX_MESSAGES = 2048
ROLES = ("assistant", "developer", "function", "system", "tool", "user")
# The text fields of a message, and those of its parts by type.
TEXT_FIELDS = ("name", "tool_call_id")
TEXT_PARTS = {"text": "text", "refusal": "refusal"}
IMAGE_FIELDS = frozenset({"url", "detail"})
DETAILS = ("auto", "low", "high", "original")
Path = tuple[int | str, ...]

SCHEMA = {
    "type": "array",
    "minItems": 1,
    "maxItems": MAX_MESSAGES,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"enum": list(ROLES)},
            "content": {
                "anyOf": [
                    {"type": "string"},
                    {"type": "array", "items": {"type": "object", "required": ["type"]}},
                    {"type": "null"},
                ]
            },
            "name": {"type": "string"},
            "tool_call_id": {"type": "string"},
            "tool_calls": {"type": "array", "items": {"type": "object"}},
        },
    },
}


def check(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages without null fields. Raises `ValidationError`."""
    return [_checked(message, place) for place, message in enumerate(messages)]


def _checked(message: dict[str, Any], place: int) -> dict[str, Any]:
    role = message.get("role")
    if role not in ROLES:
        kind = "literal_error" if "role" in message else "missing"
        _refuse(kind, place, "role", expected=_one_of(ROLES))
    if None in message.values():
        message = {name: value for name, value in message.items() if value is not None}
    if role != "assistant":
        _check_fields(message, place)
    return message


def _check_fields(message: dict[str, Any], place: int) -> None:
    for name in TEXT_FIELDS:
        if name in message and type(message[name]) is not str:
            _refuse("string_type", place, name)
    content = message.get("content", "")
    if type(content) is str:
        return
    if type(content) is not list:
        _refuse("string_type", place, "content")
    for index, part in enumerate(content):
        _check_part(part, place, "content", index)


def _check_part(part: Any, *path: int | str) -> None:
    """Check a text or an image. The computation of the bound refuses other types."""
    if type(part) is not dict:
        _refuse("dict_type", *path)
    kind = part.get("type")
    if type(kind) is not str:
        _refuse("string_type" if "type" in part else "missing", *path, "type")
    if kind in TEXT_PARTS:
        _require_text(part, TEXT_PARTS[kind], path)
    elif kind == "image_url":
        _check_image(part.get("image_url"), *path, "image_url")


def _check_image(image: Any, *path: int | str) -> None:
    if type(image) is not dict:
        _refuse("dict_type", *path)
    _require_text(image, "url", path)
    for name in image:
        if name not in IMAGE_FIELDS:
            _refuse("extra_forbidden", *path, name)
    if image.get("detail") not in (None, *DETAILS):
        _refuse("literal_error", *path, "detail", expected=_one_of(DETAILS))


def _require_text(holder: dict[str, Any], name: str, path: Path) -> None:
    if type(holder.get(name)) is not str:
        _refuse("string_type" if name in holder else "missing", *path, name)


def _one_of(values: tuple[str, ...]) -> str:
    return ", ".join(map(repr, values))


def _refuse(kind: str, *path: int | str, **context: str) -> NoReturn:
    """Raise pydantic's error for a field."""
    error: InitErrorDetails = {"type": kind, "loc": path, "input": None, "ctx": context}
    raise ValidationError.from_exception_data("messages", [error])


Messages = Annotated[
    Objects,
    Field(min_length=1, max_length=MAX_MESSAGES),
    AfterValidator(check),
    WithJsonSchema(SCHEMA),
]
