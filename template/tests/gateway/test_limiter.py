"""The contract of a limiter, for the chosen one: by its own clock, over all that share it."""

import asyncio
from itertools import cycle, islice

import pytest

from gateway.rate_limits.base import AcquireRequest, Bucket, BucketStatus, Limiter, Slot, SlotStatus
from tests.support import unique


def bucket(capacity: int, key: str = "", take: int = 1) -> Bucket:
    return Bucket("requests", key or unique("key"), capacity, take)


def slot(capacity: int, key: str = "", seconds: float = 60) -> Slot:
    return Slot(key or unique("key"), capacity, unique("holder"), seconds)


async def admitted(limiters: list[Limiter], request: AcquireRequest, times: int) -> int:
    """How many of so many demands at once pass, over all limiters in turn."""
    turns = islice(cycle(limiters), times)
    answers = await asyncio.gather(*[limiter.acquire(request) for limiter in turns])
    return sum(answer.admitted for answer in answers)


@pytest.mark.parametrize("capacity", [1, 2, 60])
async def test_exactly_the_capacity_passes_at_once(limiters: list[Limiter], capacity: int) -> None:
    request = AcquireRequest((bucket(capacity),))
    loop = asyncio.get_running_loop()
    began = loop.time()
    passed = await admitted(limiters, request, 500)
    assert capacity <= passed <= capacity + (loop.time() - began) * capacity / 60


async def test_never_more_than_the_capacity_and_its_refill(limiters: list[Limiter]) -> None:
    """A hundred a second for long enough that some refills, over all limiters at once."""
    request = AcquireRequest((bucket(6000),))
    loop = asyncio.get_running_loop()
    began, passed = loop.time(), 0
    while passed < 6010:
        passed += await admitted(limiters, request, 400)
        assert passed <= 6000 + (loop.time() - began) * 100


async def test_a_refusal_takes_nothing(limiters: list[Limiter]) -> None:
    narrow, wide = bucket(1), bucket(100)
    both = AcquireRequest((narrow, wide))
    assert await admitted(limiters, both, 10) == 1
    assert await admitted(limiters, AcquireRequest((wide,)), 150) == 99


async def test_units_are_taken_together_or_not_at_all(limiters: list[Limiter]) -> None:
    key = unique("key")
    three = AcquireRequest((bucket(5, key, take=3),))
    two = AcquireRequest((bucket(5, key, take=2),))
    assert await admitted(limiters, three, 2) == 1
    assert await admitted(limiters, two, 2) == 1


async def test_more_than_a_full_bucket_never_passes(limiters: list[Limiter]) -> None:
    assert await admitted(limiters, AcquireRequest((bucket(5, take=6),)), 1) == 0


async def test_the_admission_reports_the_remaining_units(limiters: list[Limiter]) -> None:
    request = AcquireRequest((bucket(2),))
    told = [await limiters[-1].acquire(request) for _ in range(3)]
    assert [admission.admitted for admission in told] == [True, True, False]
    assert [admission.buckets[0].remaining for admission in told] == [1, 0, 0]
    assert [admission.buckets[0].wait_seconds for admission in told] == pytest.approx(
        [0, 30, 30], abs=1
    )
    assert [admission.buckets[0].reset_seconds for admission in told] == pytest.approx(
        [30, 60, 60], abs=1
    )


async def test_a_request_passes_after_the_wait(limiters: list[Limiter]) -> None:
    request = AcquireRequest((bucket(600),))
    while (admission := await limiters[0].acquire(request)).admitted:
        pass
    await asyncio.sleep(admission.longest_wait.wait_seconds)
    assert (await limiters[-1].acquire(request)).admitted


async def test_the_longest_wait_is_found(limiters: list[Limiter]) -> None:
    narrow, wide = bucket(1), bucket(100)
    both = AcquireRequest((wide, narrow), (slot(5),))
    _, second = [await limiters[0].acquire(both) for _ in range(2)]
    assert isinstance(second.longest_wait, BucketStatus)
    assert second.longest_wait.bucket is narrow


async def test_units_that_are_given_back_can_be_taken_again(limiters: list[Limiter]) -> None:
    key = unique("key")
    all_of_it = AcquireRequest((bucket(50, key, take=50),))
    assert await admitted(limiters, all_of_it, 2) == 1
    await limiters[-1].release(AcquireRequest((bucket(50, key, take=30),)))
    assert await admitted(limiters, AcquireRequest((bucket(50, key),)), 60) == 30


async def test_giving_back_more_than_was_taken_is_no_credit(limiters: list[Limiter]) -> None:
    key = unique("key")
    assert await admitted(limiters, AcquireRequest((bucket(5, key),)), 1) == 1
    await limiters[-1].release(AcquireRequest((bucket(5, key, take=100),)))
    assert await admitted(limiters, AcquireRequest((bucket(5, key),)), 10) == 5


async def test_what_is_taken_beyond_the_capacity_has_to_leak_first(
    limiters: list[Limiter],
) -> None:
    key = unique("key")
    await limiters[0].release(AcquireRequest((bucket(6000, key, take=-6010),)))
    refused = await limiters[-1].acquire(AcquireRequest((bucket(6000, key),)))
    assert not refused.admitted
    assert refused.buckets[0].remaining == 0
    assert 0 < refused.longest_wait.wait_seconds <= 0.11
    await asyncio.sleep(refused.longest_wait.wait_seconds)
    assert (await limiters[0].acquire(AcquireRequest((bucket(6000, key),)))).admitted


async def test_exactly_as_many_slots_as_there_are_are_held(limiters: list[Limiter]) -> None:
    key = unique("key")
    requests = [AcquireRequest((), (slot(7, key),)) for _ in range(100)]
    turns = cycle(limiters)
    answers = await asyncio.gather(*[next(turns).acquire(request) for request in requests])
    holding = [
        request for request, answer in zip(requests, answers, strict=True) if answer.admitted
    ]
    assert len(holding) == 7
    assert max(answer.slots[0].taken for answer in answers) == 7
    await asyncio.gather(*[next(turns).release(request) for request in holding[:3]])
    more = [next(turns).acquire(AcquireRequest((), (slot(7, key),))) for _ in range(50)]
    assert sum(answer.admitted for answer in await asyncio.gather(*more)) == 3


async def test_freeing_a_slot_twice_frees_one(limiters: list[Limiter]) -> None:
    key = unique("key")
    first, second, third = [AcquireRequest((), (slot(2, key),)) for _ in range(3)]
    assert (await limiters[0].acquire(first)).admitted
    assert (await limiters[0].acquire(second)).admitted
    for _ in range(2):
        await limiters[-1].release(first)
    assert (await limiters[0].acquire(third)).admitted
    assert not (await limiters[-1].acquire(first)).admitted


async def test_a_holder_keeps_its_slot(limiters: list[Limiter]) -> None:
    mine = AcquireRequest((), (slot(1),))
    for limiter in (limiters[0], limiters[-1]):
        admission = await limiter.acquire(mine)
        assert admission.admitted
        assert admission.slots[0].taken == 1
    assert not (
        await limiters[0].acquire(AcquireRequest((), (slot(1, mine.slots[0].key),)))
    ).admitted


async def test_a_slot_comes_back_with_its_lease(limiters: list[Limiter]) -> None:
    key = unique("key")
    assert (await limiters[0].acquire(AcquireRequest((), (slot(2, key, seconds=60),)))).admitted
    assert (await limiters[0].acquire(AcquireRequest((), (slot(2, key, seconds=0.2),)))).admitted
    next_one = AcquireRequest((), (slot(2, key),))
    refused = await limiters[-1].acquire(next_one)
    wait = refused.longest_wait.wait_seconds
    assert not refused.admitted
    assert 0 < wait <= 0.2
    await asyncio.sleep(wait)
    assert (await limiters[-1].acquire(next_one)).admitted


async def test_fewer_slots_than_are_held_wait_for_enough_to_end(limiters: list[Limiter]) -> None:
    """As after a smaller limit was deployed."""
    key = unique("key")
    for seconds in (50, 40, 30, 20):
        await limiters[0].acquire(AcquireRequest((), (slot(4, key, seconds=seconds),)))
    refused = await limiters[-1].acquire(AcquireRequest((), (slot(2, key),)))
    assert refused.slots[0].wait_seconds == pytest.approx(40, abs=1)


async def test_a_refused_request_holds_no_slot_and_no_units(limiters: list[Limiter]) -> None:
    """Requests, tokens and a slot are one step: a refused request takes none of them."""
    per_minute, tokens, key = bucket(60), Bucket("tokens", unique("key"), 100, 30), unique("key")
    requests = [AcquireRequest((per_minute, tokens), (slot(5, key),)) for _ in range(40)]
    turns = cycle(limiters)
    answers = await asyncio.gather(*[next(turns).acquire(request) for request in requests])
    assert sum(answer.admitted for answer in answers) == 3
    assert await admitted(limiters, AcquireRequest((per_minute,)), 100) == 57
    rest = Bucket("tokens", tokens.key, 100, 10)
    assert await admitted(limiters, AcquireRequest((rest,)), 5) == 1
    free = [next(turns).acquire(AcquireRequest((), (slot(5, key),))) for _ in range(10)]
    assert sum(answer.admitted for answer in await asyncio.gather(*free)) == 2


async def test_a_request_without_a_slot_takes_no_units(limiters: list[Limiter]) -> None:
    per_minute, key = bucket(10), unique("key")
    requests = [AcquireRequest((per_minute,), (slot(2, key),)) for _ in range(20)]
    answers = await asyncio.gather(*map(limiters[-1].acquire, requests))
    assert sum(answer.admitted for answer in answers) == 2
    assert isinstance(answers[-1].longest_wait, SlotStatus)
    assert await admitted(limiters, AcquireRequest((per_minute,)), 20) == 8


async def test_the_check_passes(limiters: list[Limiter]) -> None:
    for limiter in limiters:
        await limiter.check()
