"""Work in the background: looks that are repeated for as long as the service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

from gateway.errors import DatabaseUnavailable
from gateway.telemetry.logging import log

CANCEL_AGAIN_SECONDS = 1.0


async def repeat(look: Callable[[], Awaitable[None]], seconds: float) -> NoReturn:
    """Look again and again, with a pause of `seconds`. While there is no database, in vain."""
    while True:
        try:
            with suppress(DatabaseUnavailable):
                await look()
        except Exception as error:  # One look that crashed must not be the last one.
            log(logging.ERROR, "A look in the background crashed", error=error)
        await asyncio.sleep(seconds)


@asynccontextmanager
async def in_background(
    *loops: Coroutine[Any, Any, None],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run `loops` until the end of the context. One that crashes is told, and the rest goes on."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(_tell_crash)
    try:
        yield tasks
    finally:
        running = set(tasks)
        while running:
            for task in running:
                task.cancel()
            # On Python 3.11, a cancellation can be lost in a library (CPython's issue 86296).
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)


def _tell_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log(logging.CRITICAL, "A background task crashed; restart the service", error=error)
