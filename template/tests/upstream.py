"""A provider that answers what a test makes up: the simulator speaks the wire formats well."""

import inspect
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


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

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
