"""The interface of the limiter, and the arithmetic of its backends.

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
    """A stored value, and the seconds until it expires."""

    value: str
    seconds: float


class Bucket(NamedTuple):
    """A limit, in units a minute, and the units that a request takes from it."""

    kind: Literal["requests", "tokens", "attempts"]
    key: str
    capacity: int
    take: int = 1


class Slot(NamedTuple):
    """One of `capacity` slots, which `holder` keeps until it is released, `seconds` at most.

    A holder that acquires its slot again keeps it for `seconds` from then.
    """

    key: str
    capacity: int
    holder: str
    seconds: float


class AcquireRequest(NamedTuple):
    """The units and slots that one request takes, all or nothing."""

    buckets: tuple[Bucket, ...]
    slots: tuple[Slot, ...] = ()


class BucketStatus(NamedTuple):
    """How full a bucket is, as a level (see above): with the request if it was admitted."""

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
        """Seconds until the requested units are available; 0 if they are now."""
        excess = self.level + (self.bucket.take - self.bucket.capacity) * MINUTE
        return max(0.0, excess / self.bucket.capacity / 1e6)


class SlotStatus(NamedTuple):
    """How many holders have a slot: with the request if it was admitted."""

    slot: Slot
    taken: int
    wait_seconds: float
    """Seconds until a slot is free at the latest, by the leases; 0 if one is free now."""


class Admission(NamedTuple):
    """The answer to an `AcquireRequest`, with the status of each bucket and slot."""

    admitted: bool
    buckets: tuple[BucketStatus, ...]
    slots: tuple[SlotStatus, ...] = ()

    @property
    def longest_wait(self) -> BucketStatus | SlotStatus:
        """The bucket or slot with the longest wait."""
        states: list[BucketStatus | SlotStatus] = [*self.buckets, *self.slots]
        return max(states, key=lambda state: state.wait_seconds)


class Limiter(Protocol):
    """Counts limits, exactly over all processes that share the backend.

    All methods but `close` raise `LimiterUnavailable` when the backend does not answer.
    """

    async def acquire(self, request: AcquireRequest) -> Admission:
        """Take all units and slots of `request` in one atomic step, or nothing."""

    async def release(self, request: AcquireRequest) -> None:
        """Give back the units of `request`, and free its slots.

        A negative number of units is taken, even beyond the capacity. Idempotent for slots, not
        for units.
        """

    async def set(self, key: str, value: str, seconds: float) -> None:
        """Store `value` for all processes and for `seconds`, by the backend's clock."""

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        """The stored value of each key; None if there is none or it has expired."""

    async def delete(self, *keys: str) -> None:
        """Remove the values of these keys. Idempotent."""

    async def check(self) -> None:
        """Raise `LimiterUnavailable` if the backend does not answer or takes no writes."""

    async def weakness(self) -> str | None:
        """Why the backend could lose data, and what to do about it; None if it keeps its data."""

    async def close(self) -> None:
        """Close the connections."""


def leaked(bucket: Bucket, level: int, elapsed: int) -> int:
    """The level after `elapsed` microseconds."""
    return max(0, level - elapsed * bucket.capacity)


def given_back(bucket: Bucket, level: int) -> int:
    """The level without the units that `bucket` takes."""
    return max(0, level - bucket.take * MINUTE)


def fits(bucket: Bucket, level: int) -> bool:
    """Whether the units that `bucket` takes fit on top of `level`."""
    return level + bucket.take * MINUTE <= bucket.capacity * MINUTE
