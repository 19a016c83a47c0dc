"""Reads the events of a response that a server streams itself."""

from collections.abc import Mapping
from typing import Any

from app.json_text import decode
from app.providers.base import BadAnswer, Body, ProviderFailure
from app.providers.responses.reading import ENDS, response_usage
from app.providers.sse import EventParser

# What comes before any output. It is held back, so that what fails until then can be tried again.
OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})
FAILED = "response.failed"
# What the codes of a response's error mean as a status; all others say that the request is wrong.
STATUSES = {"server_error": 500, "rate_limit_exceeded": 429, "vector_store_timeout": 500}
FAILURE = "The provider failed to complete the response."


class EventReader:
    """Takes a stream in blocks, and gives its events, those of an unknown type too.

    `is_over` after the event with the whole response. `failure` is what the stream says went wrong.
    """

    def __init__(self) -> None:
        self.failure: ProviderFailure | None = None
        self.is_over = False
        self._parser = EventParser()
        self._held: list[Body] | None = []

    def feed(self, block: bytes) -> list[Body]:
        """The events that `block` completes. Raises `BadAnswer` for one that is too long."""
        events: list[Body] = []
        for name, data in self._parser.feed(block):
            if self.is_over or self.failure:
                break
            try:
                if event := _event(name, data):
                    self._read(event, events)
            except BadAnswer as failure:
                self.failure = failure
        return events

    def _read(self, event: Body, events: list[Body]) -> None:
        kind = event["type"]
        if kind == "error" or event.get("error"):
            self.failure = _failure_of_event(event)
        elif kind in OPENING and self._held is not None:
            self._held.append(event)
        elif kind == FAILED and self._held is not None:
            self.failure = failure_of_response(event["response"])
        else:
            events += self._held or ()
            self._held = None
            events.append(event)
            self.is_over = kind in ENDS
            if kind == FAILED:
                self.failure = failure_of_response(event["response"])
                event["response"]["error"] = _told(event["response"].get("error"))


def failure_of_response(response: Mapping[str, Any]) -> ProviderFailure:
    """Why a response failed. What it used all the same is paid."""
    error = response.get("error")
    error = error if isinstance(error, dict) else {}
    code = error.get("code") if isinstance(error.get("code"), str) else None
    return ProviderFailure(
        f"the response failed ({code})",
        status=STATUSES.get(code or "server_error", 400),
        usage=response_usage(response),
        code=code,
        reason=_text(error.get("message")),
    )


def _failure_of_event(event: Mapping[str, Any]) -> ProviderFailure:
    """What an event `error` says: in its own fields or in a field of them."""
    error = event["error"] if isinstance(event.get("error"), dict) else event
    return failure_of_response({"error": error})


def _told(error: Any) -> Body:
    """An error in words of the service: the provider's are for the operator."""
    code = error.get("code") if isinstance(error, dict) else None
    return {"code": code if isinstance(code, str) else "server_error", "message": FAILURE}


def _event(name: str, data: bytes) -> Body | None:
    """An event as a document with its type; None for what says nothing."""
    if data.startswith(b"[DONE]"):
        return None
    try:
        event = decode(data)
    except ValueError as error:
        raise BadAnswer("an event of the stream is not JSON") from error
    if not isinstance(event, dict):
        return None
    kind = event.get("type")
    if not isinstance(kind, str) or not kind.isprintable():
        event["type"] = name if name.isprintable() and name else "message"
    if "response" in event and not isinstance(event["response"], dict):
        raise BadAnswer("the stream has an event of no known form")
    if event["type"] in ENDS and "response" not in event:
        raise BadAnswer("the stream ends without a response")
    return event


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
