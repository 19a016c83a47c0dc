"""Joins calls that wait at the same time into one.

A request that is alone does not wait for company: its item is handled at once. Items that
arrive while a call runs go together with the next one. So a database commit or a round trip to
a server is shared by all the requests that need one at that moment.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
MAX_AT_ONCE = 256


class Batcher(Generic[Item, Result]):
    """Hands waiting items to `handle`, one call after the other.

    `handle` takes a list of items and returns a result, or an exception to raise, for each. What
    it raises itself is raised to every caller of that batch; an `outage` also to all who wait for
    the next one, who would find the same and come later. After a batch there is a `pause`, in
    seconds, for the next one to gather: where a call costs much, few are cheaper than many.
    `abandoned` is told of results that nobody waits for any more.
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
            # Who leaves in the turn of the event loop in which the result comes never sees it.
            if self._abandoned and not future.cancelled() and not future.exception():
                self._abandoned(item, future.result())
            raise

    def enqueue(self, item: Item) -> asyncio.Future[Result]:
        """As `submit`, for who need not wait."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Wait until nothing is waiting or being handled."""
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
