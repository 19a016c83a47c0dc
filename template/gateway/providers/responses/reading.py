"""Reads the usage, the outcome and the complete answer from a response or its events."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from gateway.providers.base import BadAnswer, Body, Outcome, Usage
from gateway.providers.completion import FORM_ERRORS, is_json, usage_of

COUNTS = ("input_tokens", "output_tokens")
# The events that contain the complete response.
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
# An internal event with the usage, in a stream that is translated from a chat. Never sent.
USAGE = "usage"
DELTAS = frozenset(
    f"response.{what}.delta" for what in ("output_text", "refusal", "function_call_arguments")
)
# The reasons of an incomplete response; any other reason means that it was truncated.
REASONS = {"content_filter": Outcome.FILTERED}
STRUCTURED = frozenset({"json_object", "json_schema"})


def response_usage(response: Mapping[str, Any]) -> Usage | None:
    """The usage that the provider reported; None if a count is missing."""
    return usage_of(response.get("usage"), COUNTS)


def response_outcome(response: Body, asked: Mapping[str, Any]) -> Outcome:
    """The outcome of a response to the request `asked`. Raises `BadAnswer`."""
    try:
        return _outcome(response, asked)
    except FORM_ERRORS as error:
        usage = response_usage(response)
        raise BadAnswer("the answer is no response", usage=usage) from error


def _outcome(response: Body, asked: Mapping[str, Any]) -> Outcome:
    if response.get("status") == "incomplete":
        reason = (response.get("incomplete_details") or {}).get("reason")
        return REASONS.get(str(reason), Outcome.TRUNCATED)
    items = [item for item in response["output"] if isinstance(item, dict)]
    parts = list(_parts(items))
    if any(part.get("refusal") for part in parts):
        return Outcome.REFUSAL
    if any(str(item.get("type")).endswith("_call") for item in items):
        return Outcome.OK
    texts = [part["text"] for part in parts if part.get("text")]
    if not texts:
        return Outcome.EMPTY
    form = ((asked.get("text") or {}).get("format") or {}).get("type")
    return Outcome.OK if form not in STRUCTURED or is_json(texts[-1]) else Outcome.INVALID_SCHEMA


def _parts(items: list[Body]) -> Iterator[Body]:
    for item in items:
        if item.get("type") == "message":
            yield from (part for part in item.get("content") or () if isinstance(part, dict))


class ResponseTranscript:
    """Assembles the events of a stream into the answer of a request without streaming.

    Skips what cannot be read.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._whole: Body | None = None
        self._items: dict[int, Body] = {}
        # The texts so far of the items that are not done.
        self._pieces: dict[int, list[str]] = {}

    def add(self, event: Body) -> None:
        """Add an event."""
        with suppress(*FORM_ERRORS, ValueError):
            self._add(event)

    @property
    def begun(self) -> bool:
        """Whether there is any output."""
        return bool(self._items) or self._whole is not None

    @property
    def last_usage(self) -> Usage | None:
        """The usage of a stream that broke off."""
        return self.usage

    @property
    def output(self) -> Body:
        """The complete response, or an incomplete one with the items so far."""
        if self._whole is not None:
            return self._whole
        items = [self._so_far(place) for place in sorted(self._items)]
        return {"object": "response", "status": "incomplete", "output": items}

    def _add(self, event: Body) -> None:
        kind = event["type"]
        if kind in DELTAS:
            self._pieces[event["output_index"]].append(event["delta"])
        elif kind == "response.output_item.added":
            place = int(event["output_index"])
            self._items[place], self._pieces[place] = dict(event["item"]), []
        elif kind == "response.output_item.done":
            self._items[int(event["output_index"])] = dict(event["item"])
            self._pieces[event["output_index"]] = []
        elif kind == USAGE:
            self.usage = response_usage(event)
        elif kind in ENDS:
            self.usage = response_usage(event["response"])
            self._whole = event["response"]

    def _so_far(self, place: int) -> Body:
        item, pieces = self._items[place], self._pieces[place]
        if not pieces:
            return item
        text = "".join(map(str, pieces))
        if item.get("type") == "function_call":
            return {**item, "arguments": text}
        return {**item, "content": [{"type": "output_text", "text": text}]}
