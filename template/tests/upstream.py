"""A provider that answers what a test makes up: the simulator speaks the wire formats well."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ending = Literal["close", "cut", "hang"]


@asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """Serve `answer`, bytes or a value for JSON, on every path, and yield the address."""

    async def handle(request: web.Request) -> web.Response:
        given = answer(request)
        if inspect.isawaitable(given):
            given = await given
        body = given if isinstance(given, bytes) else json.dumps(given).encode()
        return web.Response(
            body=body, status=status, headers=headers, content_type="application/json"
        )

    async with _serving(handle) as url:
        yield url


class Streaming:
    """Sends `blocks` one by one, then ends the body, cuts the connection or sends no more."""

    def __init__(self) -> None:
        self.blocks: Sequence[bytes] = ()
        self.ending: Ending = "close"
        self.calls = 0
        self.is_over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        self.calls += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):  # A reader that has enough leaves.
            for block in self.blocks:
                await response.write(block)
                # Let the reader take it before the next one.
                await asyncio.sleep(0)
        if self.ending == "hang":
            await self.is_over.wait()
        if self.ending == "cut":
            assert request.transport is not None
            request.transport.close()
        return response


@asynccontextmanager
async def streaming(
    blocks: Sequence[bytes] = (), ending: Ending = "close"
) -> AsyncIterator[tuple[str, Streaming]]:
    """Serve a stream on every path, and yield the address and what is sent there."""
    stream = Streaming()
    stream.blocks, stream.ending = blocks, ending
    async with _serving(stream.handle) as url:
        yield url, stream
        stream.is_over.set()


@asynccontextmanager
async def _serving(handle: Handler) -> AsyncIterator[str]:
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
