"""Background tasks that repeat for as long as the service runs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

from gateway.errors import DatabaseUnavailable
from gateway.telemetry.logging import log

CANCEL_AGAIN_SECONDS = 1.0


async def repeat(poll: Callable[[], Awaitable[None]], seconds: float) -> NoReturn:
    """Call `poll` again and again, with a pause of `seconds`. Goes on after any error."""
    while True:
        try:
            with suppress(DatabaseUnavailable):
                await poll()
        except Exception as error:
            log(logging.ERROR, "A poll in the background crashed", error=error)
        await asyncio.sleep(seconds)


@asynccontextmanager
async def in_background(
    *loops: Coroutine[Any, Any, None],
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run `loops` until the end of the context. A crash is logged, and the others go on."""
    tasks = [asyncio.create_task(loop) for loop in loops]
    for task in tasks:
        task.add_done_callback(_log_crash)
    try:
        yield tasks
    finally:
        running = set(tasks)
        while running:
            for task in running:
                task.cancel()
            # On Python 3.11, a cancellation can be lost in a library (CPython's issue 86296).
            _, running = await asyncio.wait(running, timeout=CANCEL_AGAIN_SECONDS)


def _log_crash(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        log(logging.CRITICAL, "A background task crashed; restart the service", error=error)
