"""Limits in memory, by a clock that the test moves."""

from collections.abc import Coroutine
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import wiring
from gateway.rate_limits.base import (
    MINUTE,
    AcquireRequest,
    Admission,
    Bucket,
    Slot,
    fits,
    given_back,
    leaked,
)
from gateway.rate_limits.memory import MemoryLimiter
from tests.fixtures.service import Start
from tests.support import chat

CHAT = "/v1/chat/completions"
Value = TypeVar("Value")


class Clock:
    """A clock in microseconds that the test moves."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def _now(coroutine: Coroutine[None, None, Value]) -> Value:
    """The result without an event loop: it awaits nothing, so nothing runs in between."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    answer: Value = stopped.value.value
    return answer


def admission(limiter: MemoryLimiter, bucket: Bucket) -> Admission:
    return _now(limiter.acquire(AcquireRequest((bucket,))))


def acquire(limiter: MemoryLimiter, capacity: int, key: str = "key") -> bool:
    return admission(limiter, Bucket("requests", key, capacity)).admitted


@given(
    capacity=st.integers(1, 20),
    bursts=st.lists(
        st.tuples(st.integers(0, 2 * MINUTE), st.integers(1, 30)), min_size=1, max_size=10
    ),
)
def test_no_window_has_more_than_the_capacity_and_its_refill(
    capacity: int, bursts: list[tuple[int, int]]
) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    passed = []
    for pause, size in bursts:
        clock.now += pause
        passed += [clock.now for _ in range(size) if acquire(limiter, capacity)]
    for i, first in enumerate(passed):
        for count, last in enumerate(passed[i:], 1):
            assert count * MINUTE <= capacity * (MINUTE + last - first)


@given(capacity=st.integers(1, 50), idle=st.integers(0, 3 * MINUTE))
def test_a_full_bucket_lets_its_capacity_pass_and_no_more(capacity: int, idle: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    clock.now += idle
    assert [acquire(limiter, capacity) for _ in range(capacity + 1)] == [True] * capacity + [False]


@given(capacity=st.integers(1, 10_000))
def test_the_reported_wait_is_the_shortest(capacity: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    assert admission(limiter, Bucket("requests", "key", capacity, take=capacity)).admitted
    refused = admission(limiter, Bucket("requests", "key", capacity))
    wait = round(refused.longest_wait.wait_seconds * 1e6)
    clock.now += wait - 1
    assert not acquire(limiter, capacity)
    clock.now += 2
    assert acquire(limiter, capacity)


class Model:
    """The rules in their simplest form: keeps all entries and scans them all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._levels: dict[str, tuple[int, int]] = {}
        self._leases: list[tuple[str, str, int]] = []

    def acquire(self, request: AcquireRequest) -> tuple[bool, list[int], list[float]]:
        levels = [self._level(bucket) for bucket in request.buckets]
        waits = [self._wait(slot) for slot in request.slots]
        admitted = not any(waits) and all(map(fits, request.buckets, levels))
        if admitted:
            levels = [
                level + b.take * MINUTE for b, level in zip(request.buckets, levels, strict=True)
            ]
            self._keep(request, levels)
            self._free(request)
            now = self._clock.now
            self._leases += [(s.key, s.holder, now + int(s.seconds * 1e6)) for s in request.slots]
        return admitted, levels, waits

    def release(self, request: AcquireRequest) -> None:
        self._keep(request, [given_back(bucket, self._level(bucket)) for bucket in request.buckets])
        self._free(request)

    def _level(self, bucket: Bucket) -> int:
        level, at = self._levels.get(bucket.key, (0, 0))
        return leaked(bucket, level, self._clock.now - at)

    def _keep(self, request: AcquireRequest, levels: list[int]) -> None:
        kept = zip(request.buckets, levels, strict=True)
        self._levels.update({bucket.key: (level, self._clock.now) for bucket, level in kept})

    def _free(self, request: AcquireRequest) -> None:
        freed = {(slot.key, slot.holder) for slot in request.slots}
        self._leases = [lease for lease in self._leases if lease[:2] not in freed]

    def _wait(self, slot: Slot) -> float:
        now = self._clock.now
        live = [(holder, end) for key, holder, end in self._leases if key == slot.key and end > now]
        if slot.holder in dict(live):
            return 0
        ends = sorted(end - now for _, end in live)
        return next((end / 1e6 for i, end in enumerate(ends) if len(ends) - i == slot.capacity), 0)


@st.composite
def demands(draw: st.DrawFn) -> AcquireRequest:
    """A request for a few buckets and slots that other requests also use."""
    takes = st.dictionaries(st.sampled_from("abc"), st.integers(-9, 9), max_size=2)
    buckets = [Bucket("tokens", key, 8, take) for key, take in draw(takes).items()]
    holders = st.dictionaries(st.sampled_from("xy"), st.sampled_from("12345"), max_size=2)
    seconds = draw(st.integers(1, 200))
    slots = [Slot(key, 2, holder, seconds) for key, holder in draw(holders).items()]
    return AcquireRequest(tuple(buckets), tuple(slots))


@given(
    steps=st.lists(
        st.tuples(st.integers(0, 2 * MINUTE), st.sampled_from(["admit", "settle"]), demands()),
        max_size=60,
    ),
)
async def test_it_decides_as_if_it_forgot_nothing(
    steps: list[tuple[int, str, AcquireRequest]],
) -> None:
    clock = Clock()
    limiter, model = MemoryLimiter(clock), Model(clock)
    for pause, action, request in steps:
        clock.now += pause
        if action == "settle":
            await limiter.release(request)
            model.release(request)
            continue
        taken = AcquireRequest(
            tuple(bucket._replace(take=abs(bucket.take)) for bucket in request.buckets),
            request.slots,
        )
        answer = await limiter.acquire(taken)
        levels = [level.level for level in answer.buckets]
        waits = [place.wait_seconds for place in answer.slots]
        assert (answer.admitted, levels, waits) == model.acquire(taken)


def test_unused_entries_are_dropped() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    for user in range(100):
        key = f"user {user}"
        request = AcquireRequest((Bucket("tokens", key, 9, take=5),), (Slot(key, 1, "holder", 30),))
        _now(limiter.acquire(request))
        _now(limiter.release(AcquireRequest((Bucket("tokens", key, 9, take=-9),))))
    for _ in range(4):
        clock.now += MINUTE
        acquire(limiter, 1, "somebody")
    kept = [key for name in vars(limiter).values() if isinstance(name, dict) for key in name]
    assert set(kept) == {"somebody"}


async def test_after_retry_after_it_passes_and_not_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(wiring.limiter, "open_limiter", lambda *_: MemoryLimiter(clock))
    service = await start()
    client = service.client(await service.create_user("few"))
    answers = [await client.post(CHAT, json=chat()) for _ in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[-1].headers["Retry-After"] == "12"
    clock.now += 12_000_000 - 1
    assert (await client.post(CHAT, json=chat())).status_code == 429
    clock.now += 1
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert (await client.post(CHAT, json=chat())).status_code == 429
