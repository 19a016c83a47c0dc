"""The state of a circuit in one process: its recent calls, and whether too many failed."""

import datetime as dt
from collections import deque
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from gateway.policy import Model
from gateway.providers.base import BadAnswer, Blame, Exchange, ProviderFailure
from gateway.rate_limits.base import Slot

# The circuit opens after IN_A_ROW failures in a row, or when half of at least ENOUGH_CALLS calls
# within WINDOW_SECONDS failed.
IN_A_ROW, ENOUGH_CALLS, WINDOW_SECONDS = 5, 20, 30


CircuitPhase = Literal["closed", "open", "half_open"]


class CircuitStatus(NamedTuple):
    """A circuit as operators see it. An open circuit is probed after `until`, in UTC."""

    provider: str
    model: str
    state: CircuitPhase
    until: dt.datetime | None
    remaining_requests: int | None
    remaining_tokens: int | None


@dataclass(frozen=True, slots=True)
class Permit:
    """Permission for one call, acquired `at` this second of the clock. A probe holds a slot."""

    model: Model
    at: float
    probe: Slot | None = None
    exchange: Exchange = field(default_factory=Exchange)


class FailureWindow:
    """Counts the calls of the last WINDOW_SECONDS, by the second."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._seconds: deque[list[int]] = deque()

    def add(self, now: float, *, failed: bool) -> None:
        """Count a call that ended `now`, in seconds of the clock."""
        self._in_a_row = self._in_a_row + 1 if failed else 0
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        while self._seconds[0][0] <= second - WINDOW_SECONDS:
            self._seconds.popleft()
        self._seconds[-1][1] += 1
        self._seconds[-1][2] += failed

    def count(self, exchange: Exchange, now: float, *, failed: bool) -> None:
        """Count a call once; several requests may have been joined in it."""
        if not exchange.counted:
            exchange.counted = True
            self.add(now, failed=failed)

    @property
    def is_alarming(self) -> bool:
        """Whether so many calls failed that the circuit must open."""
        calls, failures = (sum(second[i] for second in self._seconds) for i in (1, 2))
        return self._in_a_row >= IN_A_ROW or (calls >= ENOUGH_CALLS and 2 * failures >= calls)


@dataclass(slots=True)
class CircuitState:
    """The state of a circuit in this process, in seconds of its clock."""

    open_until: float = 0.0
    closed_until: float = 0.0
    tripped_at: float = float("-inf")
    answered_at: float = float("-inf")
    quota_shared_at: float = float("-inf")
    window: FailureWindow = field(default_factory=FailureWindow)


def is_provider_fault(failure: ProviderFailure) -> bool:
    """Whether the provider is at fault: no connection, no answer in time, or too busy."""
    if failure.blame is not Blame.PROVIDER:
        return False
    if failure.status is None:
        return not isinstance(failure, BadAnswer)
    return failure.status >= 500 or failure.status in {408, 429}
