"""Limits in memory, by a clock that the test moves."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import wiring
from app.state.base import MINUTE, Admission, Bucket, Demand, fits, leaked
from app.state.memory import MemoryLimiter
from tests.fixtures.service import Start
from tests.support import chat

CHAT = "/v1/chat/completions"


class Clock:
    """Microseconds, which pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


def admission(limiter: MemoryLimiter, bucket: Bucket) -> Admission:
    """Admit without an event loop: there is nothing to wait for, so nobody comes in between."""
    coroutine = limiter.admit(Demand((bucket,)))
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    answer: Admission = stopped.value.value
    return answer


def admit(limiter: MemoryLimiter, capacity: int, key: str = "key") -> bool:
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
        passed += [clock.now for _ in range(size) if admit(limiter, capacity)]
    for i, first in enumerate(passed):
        for count, last in enumerate(passed[i:], 1):
            assert count * MINUTE <= capacity * (MINUTE + last - first)


@given(capacity=st.integers(1, 50), idle=st.integers(0, 3 * MINUTE))
def test_a_full_bucket_lets_its_capacity_pass_and_no_more(capacity: int, idle: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    clock.now += idle
    assert [admit(limiter, capacity) for _ in range(capacity + 1)] == [True] * capacity + [False]


@given(capacity=st.integers(1, 10_000))
def test_the_wait_that_is_told_is_the_shortest(capacity: int) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    assert admission(limiter, Bucket("requests", "key", capacity, take=capacity)).admitted
    refused = admission(limiter, Bucket("requests", "key", capacity))
    wait = round(refused.longest_wait.wait_seconds * 1e6)
    clock.now += wait - 1
    assert not admit(limiter, capacity)
    clock.now += 2
    assert admit(limiter, capacity)


@given(
    capacity=st.integers(1, 8),
    steps=st.lists(
        st.tuples(st.integers(0, 2 * MINUTE), st.integers(1, 4), st.sampled_from("abc")),
        max_size=60,
    ),
)
async def test_it_decides_as_if_it_forgot_nothing(
    capacity: int, steps: list[tuple[int, int, str]]
) -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    known: dict[str, tuple[int, int]] = {}
    for pause, take, key in steps:
        clock.now += pause
        bucket = Bucket("requests", key, capacity, take)
        level, at = known.get(key, (0, 0))
        level = leaked(bucket, level, clock.now - at)
        answer = await limiter.admit(Demand((bucket,)))
        assert answer.admitted == fits(bucket, level)
        level += take * MINUTE * answer.admitted
        assert answer.levels[0].level == level
        known[key] = level, clock.now


def test_what_is_not_used_any_more_is_forgotten() -> None:
    clock = Clock()
    limiter = MemoryLimiter(clock)
    for user in range(100):
        admit(limiter, 1, f"user {user}")
    for _ in range(3):
        clock.now += MINUTE
        admit(limiter, 1, "somebody")
    kept = [key for name in vars(limiter).values() if isinstance(name, dict) for key in name]
    assert set(kept) == {"somebody"}


async def test_after_retry_after_it_passes_and_not_before(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(wiring.limiter, "open_limiter", lambda _: MemoryLimiter(clock))
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
