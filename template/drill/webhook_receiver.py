"""The owner's webhook: takes the alerts that the service posts, and keeps their ids."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web


class Owner:
    """`received` are the ids of the alerts that arrived, in order."""

    def __init__(self) -> None:
        self.received: list[str] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        """Note an alert."""
        self.received.append((await request.json())["id"])
        return web.Response(status=204)


@asynccontextmanager
async def listening() -> AsyncIterator[Owner]:
    """Listen on a free port until the block ends."""
    owner = Owner()
    application = web.Application()
    application.router.add_post("/", owner.take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    owner.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield owner
    finally:
        await runner.cleanup()
