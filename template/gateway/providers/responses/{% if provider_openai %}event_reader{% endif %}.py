"""Reads the events of a response that the server streams in the format of `/v1/responses`."""

from collections.abc import Mapping
from typing import Any

from gateway.json_text import decode
from gateway.providers.base import BadAnswer, Body, ProviderFailure
from gateway.providers.error_answers import STATUS_OF_CODE
from gateway.providers.http import Http
from gateway.providers.openai_wire import failure_of_document
from gateway.providers.responses.reading import ENDS, response_usage
from gateway.providers.sse import EventParser

# The events before any output. They are held back, so that a failure can still be retried.
OPENING = frozenset({"response.created", "response.in_progress", "response.queued"})
FAILED = "response.failed"
FAILURE = "The provider failed to complete the response."


class EventReader:
    """Parses a stream, block by block, into events, including those of an unknown type.

    `is_over` is true after the event with the complete response. `failure` is the error that the
    stream reports.
    """

    def __init__(self, http: Http) -> None:
        self.failure: ProviderFailure | None = None
        self.is_over = False
        self._http = http
        self._parser = EventParser()
        self._held: list[Body] | None = []

    def feed(self, block: bytes) -> list[Body]:
        """The events that `block` completes. Raises `BadAnswer` for an event that is too long."""
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
            error = event["error"] if isinstance(event.get("error"), dict) else event
            self._fail(_failure(self._http, error))
        elif kind in OPENING and self._held is not None:
            self._held.append(event)
        elif kind == FAILED and self._held is not None:
            self._fail(failure_of_response(self._http, event["response"]))
        else:
            events += self._held or ()
            self._held = None
            events.append(event)
            self.is_over = kind in ENDS
            if kind == FAILED:
                self._fail(failure_of_response(self._http, event["response"]))
                event["response"]["error"] = _public_error(event["response"].get("error"))

    def _fail(self, failure: ProviderFailure) -> None:
        self.failure = failure
        if self._held is None:
            # The output so far may be billed.
            failure.billed = None


def failure_of_response(http: Http, response: Mapping[str, Any]) -> ProviderFailure:
    """The failure of a response, with the usage that it reports."""
    error = response.get("error")
    failure = _failure(http, error if isinstance(error, dict) else {})
    failure.usage = response_usage(response)
    return failure


def _failure(http: Http, error: Mapping[str, Any]) -> ProviderFailure:
    """The failure of an error. A code without a known status means that the request is wrong."""
    code = error.get("code")
    status = {"status": 400} if isinstance(code, str) and code not in STATUS_OF_CODE else {}
    return failure_of_document(http, {"error": {"message": "", **status, **error}})


def _public_error(error: Any) -> Body:
    """The error for the client, in the service's words: the provider's are for the operator."""
    code = error.get("code") if isinstance(error, dict) else None
    return {"code": code if isinstance(code, str) else "server_error", "message": FAILURE}


def _event(name: str, data: bytes) -> Body | None:
    """An event as a document with its type; None for `[DONE]` and for what is not an object."""
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
