"""An HTTP server with a test's own answers, such as ones that the simulator never sends."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
StreamEnd = Literal["close", "cut", "hang"]


@asynccontextmanager
async def answering(
    answer: Callable[[web.Request], Any],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> AsyncIterator[str]:
    """Serve `answer`, bytes or a JSON value, on every path, and yield the address."""

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
    """Sends `blocks` one by one, then ends the body, closes the connection or hangs."""

    def __init__(self) -> None:
        self.blocks: Sequence[bytes] = ()
        self.ending: StreamEnd = "close"
        self.calls = 0
        self.is_over = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        self.calls += 1
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        with suppress(ConnectionError):  # The reader may disconnect.
            for block in self.blocks:
                await response.write(block)
                # Let the reader read it before the next one.
                await asyncio.sleep(0)
        if self.ending == "hang":
            await self.is_over.wait()
        if self.ending == "cut":
            assert request.transport is not None
            request.transport.close()
        return response


@asynccontextmanager
async def streaming(
    blocks: Sequence[bytes] = (), ending: StreamEnd = "close"
) -> AsyncIterator[tuple[str, Streaming]]:
    """Serve a stream on every path, and yield the address and the stream."""
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
