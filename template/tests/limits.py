"""A limiter for tests of its users: with a clock of the test, and any order of steps."""

import asyncio
from collections.abc import Sequence

from gateway.errors import LimiterUnavailable
from gateway.rate_limits.base import AcquireRequest, Admission, SlotStatus, StoredValue


class Shared:
    """Limits without buckets, by a clock that the test moves. Each step yields to other tasks."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.memories: dict[str, tuple[str, float]] = {}
        self.holders: dict[str, tuple[str, float]] = {}
        self.steps = 0
        self.is_dead = False

    def clock(self) -> float:
        return self.now

    async def acquire(self, request: AcquireRequest) -> Admission:
        await self._step()
        (slot,) = request.slots
        holder, until = self.holders.get(slot.key, ("", 0.0))
        taken = until > self.now and holder != slot.holder
        if not taken:
            self.holders[slot.key] = slot.holder, self.now + slot.seconds
        place = SlotStatus(slot, 1, until - self.now if taken else 0.0)
        await asyncio.sleep(0)
        return Admission(not taken, (), (place,))

    async def release(self, request: AcquireRequest) -> None:
        await self._step()
        for slot in request.slots:
            if self.holders.get(slot.key, ("", 0.0))[0] == slot.holder:
                del self.holders[slot.key]

    async def set(self, key: str, value: str, seconds: float) -> None:
        await self._step()
        self.memories[key] = value, self.now + seconds

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        await self._step()
        found = [self.memories.get(key, ("", 0.0)) for key in keys]
        answer = [
            StoredValue(value, until - self.now) if until > self.now else None
            for value, until in found
        ]
        await asyncio.sleep(0)
        return answer

    async def delete(self, *keys: str) -> None:
        await self._step()
        for key in keys:
            self.memories.pop(key, None)

    async def weakness(self) -> None:
        """It has none."""

    async def check(self) -> None:
        await self._step()

    async def close(self) -> None:
        """Nothing is open."""

    async def _step(self) -> None:
        self.steps += 1
        await asyncio.sleep(0)
        if self.is_dead:
            raise LimiterUnavailable("gone", retry_after=1)


class Slow(Shared):
    """The limits of `shared`, for a process whose requests arrive late."""

    def __init__(self, shared: Shared) -> None:
        super().__init__()
        self.shared, self.gate, self.asked = shared, asyncio.Event(), asyncio.Event()
        self.memories, self.holders, self.now = shared.memories, shared.holders, shared.now

    async def acquire(self, request: AcquireRequest) -> Admission:
        self.asked.set()
        await self.gate.wait()
        return await self.shared.acquire(request)
