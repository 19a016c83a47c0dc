"""Detects that this process stood still: it was frozen, or its event loop was busy for too long.

Deadlines that pass and connections that break meanwhile do not count against a provider.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import NoReturn

TICK_SECONDS, LATE_SECONDS = 0.25, 1.0


class Stalls:
    """Ticks, and records when a tick was late. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ticked_at = clock()
        self._ended_at = -math.inf

    async def run(self) -> NoReturn:
        """Tick, until the service ends."""
        while True:
            self._tick()
            await asyncio.sleep(TICK_SECONDS)

    def since(self, at: float) -> bool:
        """Whether the process stood still at some moment after `at`, by the monotonic clock."""
        # The late tick may not have run yet.
        self._tick()
        return self._ended_at >= at

    def _tick(self) -> None:
        now = self._clock()
        if now - self._ticked_at > TICK_SECONDS + LATE_SECONDS:
            self._ended_at = now
        self._ticked_at = now
