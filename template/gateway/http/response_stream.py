"""The response that streams the events of `/v1/responses`."""

from gateway.errors import ServiceError
from gateway.http.event_stream import EventStream
from gateway.json_text import encode
from gateway.pipeline.generation import Generation
from gateway.providers.base import Body, Chunks
from gateway.providers.responses.reading import USAGE

FAILED = "response.failed"


class ResponseStream(EventStream):
    """Sends the events of a response.

    `own` are the fields of a response that the service sets itself. A stream that fails ends with
    the event `error`, unless the provider sent `response.failed`.
    """

    def __init__(self, generation: Generation, first: list[Body], rest: Chunks, own: Body) -> None:
        super().__init__(generation, first, rest)
        self._own = {**own, "model": self._model}
        self._last: Body = {}

    def event(self, document: Body) -> bytes:
        if document["type"] == USAGE:
            return b""
        self._last = document
        if "response" in document:
            document["response"] |= self._own
        return _event(document)

    def failure(self, error: ServiceError) -> bytes:
        if self._last.get("type") == FAILED:
            return b""
        fields = error.body()["error"]
        number = self._last.get("sequence_number", -1) + 1
        # OpenAI's types have the fields at the top level; its clients raise on those in `error`.
        return _event({**fields, "type": "error", "sequence_number": number, "error": fields})


def _event(document: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (document["type"].encode(), encode(document))
