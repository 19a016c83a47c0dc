"""The limiter in memory, for a service of one process."""

import time
from collections.abc import Callable, Sequence

from gateway.config import GatewayConfig
from gateway.db.engine import Database
from gateway.rate_limits.base import (
    MINUTE,
    AcquireRequest,
    Admission,
    Bucket,
    BucketStatus,
    Slot,
    SlotStatus,
    StoredValue,
    fits,
    given_back,
    leaked,
)


def monotonic() -> int:
    """Microseconds of the monotonic clock."""
    return time.monotonic_ns() // 1_000


class MemoryLimiter:
    """Levels in dictionaries. `acquire` awaits nothing, so it is one atomic step.

    A bucket that was not used for a minute is empty. So levels live in two generations, and the
    older one is dropped each minute: memory is bounded by the users of two minutes. A bucket that
    was overdrawn needs longer, and is carried over.
    """

    def __init__(self, clock: Callable[[], int] = monotonic) -> None:
        self._clock = clock
        self._young: dict[str, tuple[int, int]] = {}
        self._old: dict[str, tuple[int, int]] = {}
        self._overdrawn: dict[str, int] = {}
        self._slots: dict[str, dict[str, int]] = {}
        self._turned_at = clock()
        self._memories: dict[str, tuple[str, int]] = {}

    async def acquire(self, request: AcquireRequest) -> Admission:
        now = self._clock()
        self._forget(now)
        levels = [(bucket, self._level(bucket, now)) for bucket in request.buckets]
        waits = [self._wait(slot, now) for slot in request.slots]
        admitted = not any(waits) and all(fits(bucket, level) for bucket, level in levels)
        if admitted:
            levels = [(bucket, level + bucket.take * MINUTE) for bucket, level in levels]
            self._young.update({bucket.key: (level, now) for bucket, level in levels})
            for slot in request.slots:
                holders = self._slots.setdefault(slot.key, {})
                holders[slot.holder] = now + round(slot.seconds * 1e6)
        places = zip(request.slots, waits, strict=True)
        return Admission(
            admitted,
            tuple(BucketStatus(bucket, level) for bucket, level in levels),
            tuple(SlotStatus(slot, self._taken(slot), wait / 1e6) for slot, wait in places),
        )

    async def release(self, request: AcquireRequest) -> None:
        now = self._clock()
        for bucket in request.buckets:
            level = given_back(bucket, self._level(bucket, now))
            self._young[bucket.key] = level, now
            if level > bucket.capacity * MINUTE:
                self._overdrawn[bucket.key] = now + level // bucket.capacity
        for slot in request.slots:
            self._slots.get(slot.key, {}).pop(slot.holder, None)

    async def set(self, key: str, value: str, seconds: float) -> None:
        self._memories[key] = value, self._clock() + round(seconds * 1e6)

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        return [self._get(key) for key in keys]

    async def delete(self, *keys: str) -> None:
        for key in keys:
            self._memories.pop(key, None)

    def _get(self, key: str) -> StoredValue | None:
        value, until = self._memories.get(key, ("", 0))
        left = until - self._clock()
        return StoredValue(value, left / 1e6) if left > 0 else None

    async def check(self) -> None:
        """Memory is always available."""

    async def weakness(self) -> None:
        """None: the data ends with the process, which is the only one."""

    async def close(self) -> None:
        """There is nothing to close."""

    def _level(self, bucket: Bucket, now: int) -> int:
        level, at = self._young.get(bucket.key) or self._old.get(bucket.key) or (0, now)
        return leaked(bucket, level, now - at)

    def _wait(self, slot: Slot, now: int) -> int:
        """Microseconds until a slot is free, by the leases; 0 if one is free or held already."""
        if self._taken(slot) < slot.capacity:
            return 0
        holders = self._slots[slot.key] = _live(self._slots[slot.key], now)
        if len(holders) < slot.capacity or slot.holder in holders:
            return 0
        return sorted(holders.values())[-slot.capacity] - now

    def _taken(self, slot: Slot) -> int:
        return len(self._slots.get(slot.key, {}))

    def _forget(self, now: int) -> None:
        if now - self._turned_at < MINUTE:
            return
        self._overdrawn = {key: until for key, until in self._overdrawn.items() if until > now}
        carried = {key: self._old[key] for key in self._overdrawn if key in self._old}
        self._old, self._young, self._turned_at = carried | self._young, {}, now
        live = {key: _live(holders, now) for key, holders in self._slots.items()}
        self._slots = {key: holders for key, holders in live.items() if holders}
        self._memories = {key: kept for key, kept in self._memories.items() if kept[1] > now}


def _live(holders: dict[str, int], now: int) -> dict[str, int]:
    return {holder: until for holder, until in holders.items() if until > now}


def open_limiter(_: GatewayConfig, __: Database) -> MemoryLimiter:
    """The limiter of this process."""
    return MemoryLimiter()
