"""Time-outs that do not blame a busy event loop on a server.

A busy event loop has not yet read the answers that have arrived. So a time-out is split into
slices. Each takes at least one turn of the loop, in which it reads its sockets: an idle loop waits
exactly the given time, a busy one longer.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

SLICES = 20

Result = TypeVar("Result")


async def is_done(work: asyncio.Future[Any], seconds: float, slices: int = SLICES) -> bool:
    """Whether `work` is done within `seconds` in which the event loop was free."""
    for _ in range(slices):
        done, _ = await asyncio.wait({work}, timeout=seconds / slices)
        if done:
            return True
    return False


async def within(work: Awaitable[Result], seconds: float) -> Result:
    """The result of `work`, which is cancelled after `seconds` in which the event loop was free.

    Raises `TimeoutError`.
    """
    task = asyncio.ensure_future(work)
    try:
        if await is_done(task, seconds):
            return task.result()
    finally:
        task.cancel()
        task.add_done_callback(ignore_error)
    raise TimeoutError


def ignore_error(abandoned: asyncio.Future[Any]) -> None:
    """Retrieve the error of abandoned work, so that asyncio does not log it."""
    if not abandoned.cancelled():
        abandoned.exception()
