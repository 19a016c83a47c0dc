"""Limits in the memory of the one process that serves."""

import time
from collections.abc import Callable, Sequence

from app.settings import Settings
from app.state.base import MINUTE, Admission, Bucket, Demand, Level, Memory, fits, leaked


def monotonic() -> int:
    """Microseconds of a clock that never goes back."""
    return time.monotonic_ns() // 1_000


class MemoryLimiter:
    """Levels in a dictionary. Admission has no await in it, so it is one atomic step.

    A bucket that nothing was taken from for a minute is empty: entries live in two generations,
    and the older one is dropped each minute, so memory is bounded by the users of two minutes.
    """

    def __init__(self, clock: Callable[[], int] = monotonic) -> None:
        self._clock = clock
        self._young: dict[str, tuple[int, int]] = {}
        self._old: dict[str, tuple[int, int]] = {}
        self._turned_at = clock()
        self._memories: dict[str, tuple[str, int]] = {}

    async def admit(self, demand: Demand) -> Admission:
        now = self._clock()
        self._forget(now)
        levels = [(bucket, self._level(bucket, now)) for bucket in demand.buckets]
        admitted = all(fits(bucket, level) for bucket, level in levels)
        if admitted:
            levels = [(bucket, level + bucket.take * MINUTE) for bucket, level in levels]
            self._young.update({bucket.key: (level, now) for bucket, level in levels})
        return Admission(admitted, tuple(Level(bucket, level) for bucket, level in levels))

    async def remember(self, key: str, value: str, seconds: float) -> None:
        self._memories[key] = value, self._clock() + round(seconds * 1e6)

    async def recall(self, keys: Sequence[str]) -> Sequence[Memory | None]:
        return [self._recall(key) for key in keys]

    async def forget(self, *keys: str) -> None:
        for key in keys:
            self._memories.pop(key, None)

    def _recall(self, key: str) -> Memory | None:
        value, until = self._memories.get(key, ("", 0))
        left = until - self._clock()
        return Memory(value, left / 1e6) if left > 0 else None

    async def check(self) -> None:
        """Memory always answers."""

    async def close(self) -> None:
        """Nothing is open."""

    def _level(self, bucket: Bucket, now: int) -> int:
        level, at = self._young.get(bucket.key) or self._old.get(bucket.key) or (0, now)
        return leaked(bucket, level, now - at)

    def _forget(self, now: int) -> None:
        if now - self._turned_at >= MINUTE:
            self._old, self._young, self._turned_at = self._young, {}, now


def open_limiter(_: Settings) -> MemoryLimiter:
    """Limits that live as long as this process."""
    return MemoryLimiter()
