"""What is known of the request at hand, for every log line that it causes."""

from contextvars import ContextVar
from typing import Any

_fields: ContextVar[dict[str, Any] | None] = ContextVar("request_fields", default=None)


def begin(**fields: Any) -> dict[str, Any]:
    """Start a request. What is noted until its end is in the returned dictionary."""
    _fields.set(fields)
    return fields


def bind(**fields: Any) -> None:
    """Add to what is known of the request; outside of a request there is nothing to add to."""
    known = _fields.get()
    if known is not None:
        known.update(fields)


def bound_fields() -> dict[str, Any]:
    """What has been noted so far."""
    return _fields.get() or {}
