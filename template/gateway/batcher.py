"""Joins calls that wait at the same time into one.

A single item is handled at once. Items that arrive while a call runs are the batch of the next
call. So all requests of a moment share a database commit, or a round trip to a server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_AT_ONCE = 256


class Batcher(Generic[Item, Result]):
    """Passes waiting items to `handle`, one call after the other.

    `handle` takes a list of items and returns a result, or an exception to raise, for each. An
    exception of `handle` itself is raised to all callers of the batch; an `outage` also to those of
    waiting items. After a batch, there is a `pause`, in seconds, in which the next one gathers:
    fewer calls cost less. `abandoned` is called with results whose callers have gone.
    """

    def __init__(
        self,
        handle: Callable[[list[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        pause: float = 0,
        outage: type[Exception] | None = None,
        abandoned: Callable[[Item, Result], None] | None = None,
    ) -> None:
        self._handle = handle
        self._pause = pause
        self._outage = outage
        self._abandoned = abandoned
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._runner: asyncio.Task[None] | None = None

    async def submit(self, item: Item) -> Result:
        """The result of `item`. An item is handled even when its caller stops waiting."""
        future = self.enqueue(item)
        try:
            return await future
        except asyncio.CancelledError:
            # Cancelled in the turn of the event loop in which the result came.
            if self._abandoned and not future.cancelled() and not future.exception():
                self._abandoned(item, future.result())
            raise

    def enqueue(self, item: Item) -> asyncio.Future[Result]:
        """As `submit`, without waiting for the result."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Wait until no item is waiting or being handled."""
        while self._runner is not None:
            await asyncio.wait([self._runner])

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_AT_ONCE], self._waiting[MAX_AT_ONCE:]
                await self._run_batch(batch)
                await asyncio.sleep(self._pause)
        finally:
            self._runner = None

    async def _run_batch(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._handle([item for item, _ in batch])
            assert len(results) == len(batch), "a result for each item"
        except Exception as error:
            if self._outage and isinstance(error, self._outage):
                batch, self._waiting = batch + self._waiting, []
            results = [error] * len(batch)
        for (item, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                if not future.cancelled():
                    future.set_exception(result)
            elif not future.cancelled():
                future.set_result(result)
            elif self._abandoned:
                self._abandoned(item, result)
