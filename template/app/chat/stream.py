"""The response that streams a chat."""

from typing import Any

from pydantic_core import to_json

from app.errors import ServiceError
from app.guard.generation import Generation
from app.providers.base import Body, Chunks
from app.stream import EventStream


class ChatStream(EventStream):
    """Sends the chunks of a chat.

    A stream that fails ends with an error event and without `[DONE]`.
    """

    done = b"data: [DONE]\n\n"

    def __init__(
        self, generation: Generation, first: list[Body], chunks: Chunks, *, with_usage: bool
    ) -> None:
        super().__init__(generation, first, chunks)
        self._with_usage = with_usage

    def event(self, document: Body) -> bytes:
        document["model"] = self._model
        if not self._with_usage:
            document.pop("usage", None)
        is_asked_for = document.get("choices") or "usage" in document
        return _event(document) if is_asked_for else b""

    def failure(self, error: ServiceError) -> bytes:
        return _event(error.body())


def _event(document: Any) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"
