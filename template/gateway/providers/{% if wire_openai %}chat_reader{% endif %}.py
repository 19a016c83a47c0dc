"""Reads the events of a streamed chat: its chunks and its end."""

from collections.abc import Callable
from typing import Any

from pydantic_core import from_json

from gateway.json_text import decode
from gateway.providers.base import BadAnswer, Body, ProviderFailure
from gateway.providers.completion import FORM_ERRORS, choices_of, index_of
from gateway.providers.sse import EventParser
from gateway.providers.tool_calls import mend

DONE = b"[DONE]"


class ChatReader:
    """Parses a stream, block by block, into chunks.

    `has_ended` is true once all requested choices have a `finish_reason`: nothing after that is a
    failure. `is_over` is true after `[DONE]`. `failure` is the error that ended the stream.
    """

    def __init__(self, asked: int, failure_of: Callable[[Any], ProviderFailure]) -> None:
        self.has_ended = False
        self.is_over = False
        self.failure: ProviderFailure | None = None
        self._asked = asked
        self._failure_of = failure_of
        self._events = EventParser()
        # Whether each choice has ended, by its index.
        self._choices: dict[int | str, bool] = {}

    def feed(self, block: bytes) -> list[Body]:
        """The chunks that `block` completes. Raises `BadAnswer` for an event that is too long."""
        chunks = []
        for name, data in self._events.feed(block):
            chunk: Any
            try:
                chunk = from_json(data)
                (choice,) = chunk["choices"]
                goes_on = (
                    choice.get("finish_reason") is None
                    and choice["index"] in self._choices
                    and "tool_calls" not in choice["delta"]
                    and "function_call" not in choice["delta"]
                    and "error" not in chunk
                )
            except FORM_ERRORS:
                goes_on = False
            if name or not goes_on:
                chunk = self._read(name, data)
            if chunk is not None:
                chunks.append(chunk)
            elif self.is_over or self.failure:
                break
        return chunks

    def close(self) -> None:
        """End the stream. Raises `ProviderFailure` when it was cut off."""
        # A server may send fewer choices than requested.
        if not self._choices or not all(self._choices.values()):
            raise ProviderFailure("the stream was cut")

    def _read(self, name: str, data: bytes) -> Body | None:
        """The chunk of any event that is not just the next piece of a choice, or None."""
        try:
            chunk = decode(data)
        except ValueError:
            self._read_text(name, data.strip())
            return None
        if name == "error" or is_error(chunk):
            self._fail(chunk if is_error(chunk) else {"error": chunk})
            return None
        if not isinstance(chunk, dict):
            return None
        for choice in choices_of(chunk):
            mend(choice.get("delta"))
        self._note_ends(chunk)
        return chunk

    def _read_text(self, name: str, text: bytes) -> None:
        """Handle data that is not JSON."""
        if text.startswith(DONE):
            self.is_over = True
        elif name == "error":
            self._fail({"error": text.decode(errors="replace")})
        elif text and not self.has_ended:
            self.failure = BadAnswer("an event of the stream is not JSON")

    def _fail(self, document: Any) -> None:
        if self.has_ended:
            return
        self.failure = self._failure_of(document)
        if self._choices:
            # The output so far may be billed.
            self.failure.billed = None

    def _note_ends(self, chunk: Body) -> None:
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return
        for place, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            index, ends = index_of(choice, place), bool(choice.get("finish_reason"))
            if ends or index not in self._choices:
                self._choices[index] = ends
                begun = self._choices.values()
                self.has_ended = len(begun) >= self._asked and all(begun)


def is_error(document: Any) -> bool:
    """Whether an event is an error instead of a chunk."""
    if not isinstance(document, dict):
        return False
    if document.get("error"):
        return True
    return "choices" not in document and "error" in (document.get("object"), document.get("type"))
