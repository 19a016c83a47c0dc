"""Server-sent events: the response that streams an answer, in whichever format."""

import asyncio
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from gateway.errors import ServiceError, cut_short, log_cause
from gateway.idempotency.store import STORE_SECONDS
from gateway.pipeline.error_mapping import too_late
from gateway.pipeline.generation import Generation
from gateway.providers.base import Body, Chunks
from gateway.telemetry.context import bind
from gateway.telemetry.scheduler import timed_task

# More than the last word may wait until the answer is stored.
LAST_WORD_SECONDS = STORE_SECONDS + 1

Given = TypeVar("Given")


class EventStream(Response):
    """Sends events as they come, until they end, the client leaves or time is up.

    What arrived together is sent together. `failed` turns true before the last event of a stream
    that ends with an error.
    """

    media_type = "text/event-stream"
    # The last event of a stream that is complete.
    done = b""

    def __init__(self, generation: Generation, first: list[Body], rest: Chunks) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", **generation.headers})
        del self.headers["content-length"]
        self.failed = False
        self._has_begun = False
        self._generation = generation
        self._model = generation.model.id
        self._first = first
        self._rest = rest

    @abstractmethod
    def event(self, document: Body) -> bytes:
        """An event as it is sent, empty when the client is not told of it."""

    @abstractmethod
    def failure(self, error: ServiceError) -> bytes:
        """The last event of a stream that fails."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
        """Send the last event. A client that reads no more must not hold the request for good."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await send({"type": "http.response.body", "body": last})

    def _fail(self, error: ServiceError) -> bytes:
        self.failed = True
        bind(code=error.code)
        return self.failure(error)

    async def _send(self, send: Send, documents: list[Body]) -> None:
        body = b"".join(self.event(document) for document in documents)
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Given]) -> Given:
    """What `work` gives; it ends when the client leaves. Raises `ClientDisconnect`."""
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
