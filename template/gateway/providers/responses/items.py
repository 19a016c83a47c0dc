"""The items of a response while they are written, with the events of each step."""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.ids import new_id
from gateway.providers.base import Body

# The text field of each kind of content, and its other fields.
FIELDS = {"output_text": "text", "refusal": "refusal", "reasoning_text": "text"}
REST: Mapping[str, tuple[str, ...]] = {"output_text": ("annotations", "logprobs")}


class TextItem:
    """A message, or the reasoning before it. Every method returns the events of its change."""

    def __init__(self, place: int, kind: str) -> None:
        self.place = place
        if kind == "message":
            own: Body = {"id": new_id("msg"), "role": "assistant"}
        else:
            own = {"id": new_id("rs"), "summary": []}
        self.document: Body = {"type": kind, **own, "content": []}
        self._kind: str | None = None
        self._pieces: list[str] = []
        self._rest: dict[str, list[Any]] = {}

    def write(self, kind: str, piece: str, logprobs: Sequence[Any] = ()) -> list[Body]:
        """Add `piece` to content of this kind."""
        events = self._close_part() if kind != self._kind else []
        if kind != self._kind:
            events.append(self._open_part(kind))
        self._pieces.append(piece)
        delta = self._event(f"response.{kind}.delta", delta=piece)
        if kind == "output_text":
            delta["logprobs"] = list(logprobs)
            self._rest["logprobs"] += logprobs
        return [*events, delta]

    def annotate(self, annotations: Sequence[Body]) -> list[Body]:
        """Add the annotations of a text."""
        known = self._rest.get("annotations")
        if known is None:
            return []
        events = []
        for annotation in annotations:
            numbers = {"annotation": annotation, "annotation_index": len(known)}
            events.append(self._event("response.output_text.annotation.added", **numbers))
            known.append(annotation)
        return events

    def close(self, status: str) -> list[Body]:
        """End the item."""
        return [*self._close_part(), done(self.place, self.document, status)]

    def _open_part(self, kind: str) -> Body:
        self._kind, self._pieces = kind, []
        self._rest = {name: [] for name in REST.get(kind, ())}
        return self._event("response.content_part.added", part=self._part(""))

    def _close_part(self) -> list[Body]:
        if self._kind is None:
            return []
        kind, text = self._kind, "".join(self._pieces)
        part, field = self._part(text), {FIELDS[kind]: text}
        if kind == "output_text":
            field["logprobs"] = part["logprobs"]
        events = [
            self._event(f"response.{kind}.done", **field),
            self._event("response.content_part.done", part=part),
        ]
        self.document["content"].append(part)
        self._kind = None
        return events

    def _part(self, text: str) -> Body:
        assert self._kind is not None, "a part that is open"
        rest = {name: [*values] for name, values in self._rest.items()}
        return {"type": self._kind, FIELDS[self._kind]: text, **rest}

    def _event(self, kind: str, **rest: Any) -> Body:
        return {
            "type": kind,
            "item_id": self.document["id"],
            "output_index": self.place,
            "content_index": len(self.document["content"]),
            **rest,
        }


class CallItem:
    """A call of one of the client's functions."""

    def __init__(self, place: int, call_id: str) -> None:
        self.place = place
        self.document: Body = {
            "id": new_id("fc"),
            "type": "function_call",
            "call_id": call_id,
            "name": "",
            "arguments": "",
        }
        self._pieces: list[str] = []

    def write(self, piece: str) -> list[Body]:
        """Add `piece` to the arguments."""
        self._pieces.append(piece)
        return [self._event("response.function_call_arguments.delta", delta=piece)]

    def close(self, status: str) -> list[Body]:
        """End the call. A call without arguments gets an empty object."""
        events = [] if self._pieces else self.write("{}")
        arguments = self.document["arguments"] = "".join(self._pieces)
        end = self._event("response.function_call_arguments.done", arguments=arguments)
        return [*events, end, done(self.place, self.document, status)]

    def _event(self, kind: str, **rest: Any) -> Body:
        item = {"item_id": self.document["id"], "output_index": self.place}
        return {"type": kind, **item, **rest}


Item = TextItem | CallItem


def added(item: Item) -> Body:
    """The event that begins an item."""
    document = {**item.document, "status": "in_progress"}
    if "content" in document:
        document["content"] = []
    return {"type": "response.output_item.added", "output_index": item.place, "item": document}


def done(place: int, document: Body, status: str) -> Body:
    """The event that ends an item."""
    document["status"] = status
    return {"type": "response.output_item.done", "output_index": place, "item": {**document}}
