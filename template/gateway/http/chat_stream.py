"""The response that streams a chat."""

from typing import Any

from gateway.errors import ServiceError
from gateway.http.event_stream import EventStream
from gateway.json_text import encode
from gateway.pipeline.generation import Generation
from gateway.providers.base import Body, Chunks


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
        # The service always requests the usage from providers. It may come in its own chunk.
        is_asked_for = (
            self._with_usage or not document.pop("usage", None) or bool(document.get("choices"))
        )
        return _event(document) if is_asked_for else b""

    def failure(self, error: ServiceError) -> bytes:
        return _event(error.body())


def _event(document: Any) -> bytes:
    return b"data: " + encode(document) + b"\n\n"
