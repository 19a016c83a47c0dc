"""Turns for work that takes a processor: few at a time, and no caller's queue delays another's."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class NoTurn(Exception):
    """Too many wait, or the deadline passed."""


class Turns:
    """Lets `at_once` work at the same time; of each class, up to `most_waiting` wait.

    Each caller has a queue of its own. The queues take turns, so that a caller with one piece of
    work waits for one piece of each other caller's at most. The first class goes before the other.
    """

    def __init__(self, at_once: int, most_waiting: int, seconds: float) -> None:
        self._free = at_once
        self._seconds = seconds
        self._first, self._others = Queues(most_waiting), Queues(most_waiting)

    @asynccontextmanager
    async def turn(self, caller: str, *, first: bool = False) -> AsyncIterator[None]:
        """A turn for the block. Raises `NoTurn`, also when it did not come within the seconds."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._first if first else self._others, caller)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, queues: "Queues", caller: str) -> None:
        place = queues.enter(caller)
        try:
            async with asyncio.timeout(self._seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled() and not place.exception():
                self._pass_on()  # The turn came at the same moment.
            if isinstance(error, TimeoutError):
                raise NoTurn from error
            raise
        finally:
            queues.leave(caller, place)

    def _pass_on(self) -> None:
        """Give the turn that ended to the next one that waits."""
        while place := self._first.next() or self._others.next():
            if not place.done():
                place.set_result(None)
                return
        self._free += 1


class Queues:
    """Those that wait, a queue for each caller."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    def enter(self, caller: str) -> asyncio.Future[None]:
        """A place at the end of the caller's queue.

        When all places are taken, the last one of the longest queue is lost, which may be this.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(caller, deque()).append(place)
        if sum(map(len, self._queues.values())) > self._most:
            # The newest of them, so that of queues of one place the others stay.
            longest = max(reversed(self._queues), key=lambda name: len(self._queues[name]))
            last = self._queues[longest][-1]
            self.leave(longest, last)
            if not last.done():
                last.set_exception(NoTurn())
        return place

    def leave(self, caller: str, place: asyncio.Future[None]) -> None:
        """Give up a place, if it is one still."""
        queue = self._queues.get(caller, deque())
        if place in queue:
            queue.remove(place)
        if not queue:
            self._queues.pop(caller, None)

    def next(self) -> asyncio.Future[None] | None:
        """The place whose turn it is; its caller's queue goes behind the others."""
        for caller, queue in self._queues.items():
            place = queue.popleft()
            del self._queues[caller]
            if queue:
                self._queues[caller] = queue
            return place
        return None
