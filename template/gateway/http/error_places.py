"""The path of an error in a request."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from gateway.schemas.base import RequestBody
from gateway.telemetry.context import bind

MAX_PATH = 100
MADE_UP = "…"
# Names in messages, items and tools, in the query, in headers and in limits.
OTHER_NAMES = frozenset(
    {
        *("arguments", "call_id", "content", "detail", "file_id", "image_url", "name", "output"),
        *("refusal", "role", "text", "tool_call_id", "type", "url"),
        *("cursor", "from", "group_by", "limit", "to", "user_id"),
        *("idempotency-key", "requests", "tokens", "concurrency"),
    }
)
Error = TypeVar("Error", bound=Mapping[str, Any])


def place_of(errors: Sequence[Error], body: Any) -> tuple[str, Error]:
    """The path of the deepest error in `body`, and that error.

    A value that matches none of several forms has an error for each; the client most likely meant
    the form that matches furthest.
    """
    paths = [_path(error, body) for error in errors]
    deepest = max(range(len(errors)), key=lambda index: len(paths[index]))
    return ".".join(map(str, paths[deepest]))[:MAX_PATH], errors[deepest]


def note_error(code: str | None, param: str | None) -> None:
    """Bind the error to the log line of the request."""
    bind(code=code, **({"param": known_path(param)} if param else {}))


def known_path(path: str) -> str:
    """`path` without unknown names, which may be content."""
    steps = path.split(".")
    return ".".join(step if step.isdecimal() or step in _names() else MADE_UP for step in steps)


@cache
def _names() -> frozenset[str]:
    """The names of all fields in requests."""
    schemas = [RequestBody]
    for schema in schemas:
        schemas += schema.__subclasses__()
    return OTHER_NAMES.union(*(schema.model_fields for schema in schemas))


def _path(error: Mapping[str, Any], body: Any) -> list[int | str]:
    """The steps of an error's location that exist in `body`: pydantic adds names of forms."""
    steps: list[int | str] = list(error["loc"][1:])
    if error["loc"][0] != "body":
        return steps
    path: list[int | str] = []
    for step in steps:
        if _has(body, step):
            body = body[step]
            path.append(step)
    if error["type"] == "missing" and steps:
        path.append(steps[-1])
    return path


def _has(holder: Any, step: int | str) -> bool:
    if isinstance(step, int):
        return isinstance(holder, list) and step < len(holder)
    return isinstance(holder, dict) and step in holder
