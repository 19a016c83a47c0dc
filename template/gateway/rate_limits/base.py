"""The interface of what limits share, and the arithmetic that every backend follows.

A limit is a bucket of `capacity` units that refills by `capacity` units a minute. The rule is the
generic cell rate algorithm (GCRA, ITU-T I.371 annex A) in its leaky-bucket form, in integers:
a level, in millionths of a unit times 60, leaks `capacity` a microsecond, and a request is
admitted when the level with its units on top is at most that of a full bucket.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

MINUTE = 60_000_000
"""A minute in microseconds, and so the level of one unit."""


class StoredValue(NamedTuple):
    """What was remembered, and for how many seconds it still is."""

    value: str
    seconds: float


class Bucket(NamedTuple):
    """One limit and the units that a request takes from it."""

    kind: Literal["requests", "tokens", "attempts"]
    key: str
    capacity: int
    take: int = 1


class Slot(NamedTuple):
    """One of `capacity` places, which `holder` keeps until it is settled, `seconds` at most.

    Whoever has a place and asks again keeps it, for `seconds` from then.
    """

    key: str
    capacity: int
    holder: str
    seconds: float


class AcquireRequest(NamedTuple):
    """All that one request takes: granted as a whole, or refused and nothing is taken."""

    buckets: tuple[Bucket, ...]
    slots: tuple[Slot, ...] = ()


class BucketStatus(NamedTuple):
    """How full a bucket is (see above): after the request was admitted, or as it stands."""

    bucket: Bucket
    level: int

    @property
    def remaining(self) -> int:
        """Whole units that could be taken now."""
        return max(0, (self.bucket.capacity * MINUTE - self.level) // MINUTE)

    @property
    def reset_seconds(self) -> float:
        """Seconds until the bucket is full again."""
        return self.level / self.bucket.capacity / 1e6

    @property
    def wait_seconds(self) -> float:
        """Seconds until the units that were asked for can be taken; 0 when they can be now."""
        excess = self.level + (self.bucket.take - self.bucket.capacity) * MINUTE
        return max(0.0, excess / self.bucket.capacity / 1e6)


class SlotStatus(NamedTuple):
    """How many hold a slot: with this request when it was admitted, or as it stands."""

    slot: Slot
    taken: int
    wait_seconds: float
    """Seconds until a place is free at the latest, by the leases; 0 when there is one now."""


class Admission(NamedTuple):
    """The answer to a demand, with the level of each bucket and the state of each slot."""

    admitted: bool
    buckets: tuple[BucketStatus, ...]
    slots: tuple[SlotStatus, ...] = ()

    @property
    def longest_wait(self) -> BucketStatus | SlotStatus:
        """What keeps a refused request out the longest."""
        states: list[BucketStatus | SlotStatus] = [*self.buckets, *self.slots]
        return max(states, key=lambda state: state.wait_seconds)


class Limiter(Protocol):
    """Where limits are counted. Exact over all processes that share the backend."""

    async def acquire(self, request: AcquireRequest) -> Admission:
        """Take all units and slots of `request` in one atomic step, or nothing.

        Raises `LimiterUnavailable` when the backend does not answer: access fails closed.
        """

    async def release(self, request: AcquireRequest) -> None:
        """Give back the units of `request`, and free the slots of its holders.

        A negative number of units is taken, also beyond the capacity. Not to be repeated for
        units; a slot that is free stays free. Raises `LimiterUnavailable`.
        """

    async def set(self, key: str, value: str, seconds: float) -> None:
        """Share `value` with all processes for so long, by the backend's clock."""

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        """What is remembered under each key."""

    async def delete(self, *keys: str) -> None:
        """Remember these no longer."""

    async def check(self) -> None:
        """Raise `LimiterUnavailable` when the backend does not answer."""

    async def weakness(self) -> str | None:
        """Why it could forget what was taken, and what to do; None if it could not.

        Raises `LimiterUnavailable`.
        """

    async def close(self) -> None:
        """Give back connections."""


def leaked(bucket: Bucket, level: int, elapsed: int) -> int:
    """The level after `elapsed` microseconds."""
    return max(0, level - elapsed * bucket.capacity)


def given_back(bucket: Bucket, level: int) -> int:
    """The level without the units of `bucket`."""
    return max(0, level - bucket.take * MINUTE)


def fits(bucket: Bucket, level: int) -> bool:
    """Whether the units that `bucket` asks for fit on top of `level`."""
    return level + bucket.take * MINUTE <= bucket.capacity * MINUTE
