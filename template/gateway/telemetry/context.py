"""Fields that are bound to the current request, for all of its log lines."""

from contextvars import ContextVar
from typing import Any

_fields: ContextVar[dict[str, Any] | None] = ContextVar("request_fields", default=None)


def begin(**fields: Any) -> dict[str, Any]:
    """Begin a request with these fields. The returned dictionary gets all that are bound later."""
    _fields.set(fields)
    return fields


def bind(**fields: Any) -> None:
    """Bind fields to the current request. Does nothing outside of a request."""
    known = _fields.get()
    if known is not None:
        known.update(fields)


def bound_fields() -> dict[str, Any]:
    """The fields that are bound to the current request; empty outside of one."""
    return _fields.get() or {}
