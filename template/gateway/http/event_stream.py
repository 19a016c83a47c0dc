"""Server-sent events: the base of the responses that stream an answer."""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.errors import ServiceError, cut_short, log_cause
from gateway.idempotency.idempotency import RecordedAnswer
from gateway.idempotency.store import STORE_SECONDS
from gateway.pipeline.error_mapping import too_late
from gateway.pipeline.generation import Generation
from gateway.providers.base import Body, Chunks
from gateway.telemetry.context import bind
from gateway.telemetry.scheduler import timed_task

# The time-out of a stream's end, which may wait until the answer is stored.
END_SECONDS = STORE_SECONDS + 1

Given = TypeVar("Given")


class EventStream(Response):
    """Sends events until they end, the client disconnects or the deadline passes.

    Events that arrived together are sent together.
    """

    media_type = "text/event-stream"
    # The last event of a stream that is complete.
    done = b""

    def __init__(self, generation: Generation, first: list[Body], rest: Chunks) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", **generation.headers})
        del self.headers["content-length"]
        self._recorded: RecordedAnswer | None = None
        self._has_begun = False
        self._generation = generation
        self._model = generation.model.id
        self._first = first
        self._rest = rest

    @abstractmethod
    def event(self, document: Body) -> bytes:
        """The bytes of an event; empty if it is not sent."""

    @abstractmethod
    def failure(self, error: ServiceError) -> bytes:
        """The bytes of the last event of a stream that fails."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._recorded = scope.get("state", {}).get("answer")
        try:
            with suppress(ClientDisconnect):
                await unless_left(receive, self._relay(send))
        except asyncio.CancelledError:
            if not self._has_begun:
                raise
            # The process was asked to stop, and the time to finish is over.
            await self._end(send, self._fail(cut_short()))
        finally:
            await self._rest.aclose()

    async def _relay(self, send: Send) -> None:
        deadline = self._generation.current.request.deadline
        headers = {"status": 200, "headers": self.raw_headers}
        await send({"type": "http.response.start", **headers})
        self._has_begun = True
        try:
            async with deadline.scope():
                await self._send(send, self._first)
                async for documents in self._rest:
                    await self._send(send, documents)
            last = self.done
        except TimeoutError:
            last = self._fail(too_late(deadline))
        except ServiceError as error:
            log_cause(error)
            last = self._fail(error)
        await self._end(send, last)

    async def _end(self, send: Send, last: bytes) -> None:
        """Send the last event, with a time-out for a client that does not read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                await send({"type": "http.response.body", "body": last})

    def _fail(self, error: ServiceError) -> bytes:
        if self._recorded:
            self._recorded.failed = True
        bind(code=error.code)
        return self.failure(error)

    async def _send(self, send: Send, documents: list[Body]) -> None:
        body = b"".join(self.event(document) for document in documents)
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Given]) -> Given:
    """The result of `work`, cancelled when the client disconnects. Raises `ClientDisconnect`."""
    working, leaving = asyncio.create_task(timed_task(work)), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
