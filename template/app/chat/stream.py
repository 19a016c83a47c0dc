"""Server-sent events: the response that streams a chat."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from fastapi import Response
from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from app.errors import ServiceError, log_cause
from app.guard.claims import STORE_SECONDS
from app.guard.failures import too_late
from app.guard.generation import Generation
from app.guard.idempotency import DONE, EVENTS
from app.providers.base import Body, Chunks

# More than the last word may wait until the answer is stored.
LAST_WORD_SECONDS = STORE_SECONDS + 1

Given = TypeVar("Given")


class ChatStream(Response):
    """Sends chunks as they come, until they end, the client leaves or time is up.

    What arrived together is sent together. A stream that fails ends with an error event and
    without `[DONE]`.
    """

    media_type = EVENTS

    def __init__(
        self, generation: Generation, first: list[Body], chunks: Chunks, *, with_usage: bool
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", **generation.headers})
        del self.headers["content-length"]
        self._generation = generation
        self._model = generation.model.id
        self._first = first
        self._chunks = chunks
        self._with_usage = with_usage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with suppress(ClientDisconnect):
                await unless_left(receive, self._relay(send))
        finally:
            await self._chunks.aclose()

    async def _relay(self, send: Send) -> None:
        deadline = self._generation.current.job.deadline
        headers = {"status": 200, "headers": self.raw_headers}
        await send({"type": "http.response.start", **headers})
        try:
            async with deadline.scope():
                await self._send(send, self._first)
                async for chunks in self._chunks:
                    await self._send(send, chunks)
            last = DONE
        except TimeoutError:
            last = _event(too_late(deadline).body())
        except ServiceError as error:
            log_cause(error)
            last = _event(error.body())
        # A client that reads no more must not hold the request for good.
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await send({"type": "http.response.body", "body": last})

    async def _send(self, send: Send, chunks: list[Body]) -> None:
        body = b"".join(_event(chunk) for chunk in chunks if self._is_asked_for(chunk))
        if body:
            await send({"type": "http.response.body", "body": body, "more_body": True})

    def _is_asked_for(self, chunk: Body) -> bool:
        chunk["model"] = self._model
        if not self._with_usage:
            chunk.pop("usage", None)
        return bool(chunk.get("choices")) or "usage" in chunk


async def unless_left(receive: Receive, work: Coroutine[Any, Any, Given]) -> Given:
    """What `work` gives; it ends when the client leaves. Raises `ClientDisconnect`."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})
    if working.cancelled():
        raise ClientDisconnect
    return working.result()


def _event(document: Any) -> bytes:
    return b"data: " + to_json(document) + b"\n\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
