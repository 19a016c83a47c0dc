"""What a response, or its stream of events, says: usage, outcome, and the whole answer."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic_core import from_json

from gateway.providers.base import BadAnswer, Body, Outcome, Usage
from gateway.providers.completion import FORM_ERRORS, usage_of

COUNTS = ("input_tokens", "output_tokens")
# The events that hold the whole response as it ended.
ENDS = frozenset({"response.completed", "response.incomplete", "response.failed"})
# What the service tells itself before the last event, in a stream that is translated: the usage.
USAGE = "usage"
DELTAS = frozenset(
    f"response.{what}.delta" for what in ("output_text", "refusal", "function_call_arguments")
)
# Why a response is not complete; every other reason cut it short as well.
REASONS = {"content_filter": Outcome.FILTERED}
STRUCTURED = frozenset({"json_object", "json_schema"})


def response_usage(response: Mapping[str, Any]) -> Usage | None:
    """What the provider counted, if it said all of it."""
    return usage_of(response.get("usage"), COUNTS)


def response_outcome(response: Body, asked: Mapping[str, Any]) -> Outcome:
    """How a response ended, given what was `asked`. Raises `ProviderFailure`."""
    try:
        return _outcome(response, asked)
    except FORM_ERRORS as error:
        raise BadAnswer("the answer is no response") from error


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
    return Outcome.OK if form not in STRUCTURED or _is_json(texts[-1]) else Outcome.INVALID_SCHEMA


def _parts(items: list[Body]) -> Iterator[Body]:
    for item in items:
        if item.get("type") == "message":
            yield from (part for part in item.get("content") or () if isinstance(part, dict))


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True


class ResponseTranscript:
    """Puts the events of a stream together, as the answer that would have come in one piece.

    What cannot be read is left out.
    """

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._whole: Body | None = None
        self._items: dict[int, Body] = {}
        # What was written so far of the items that are not done.
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
        """The response as it ended, or as far as it came."""
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
