"""The contract of a limiter, for the chosen one: by its own clock, over all that share it."""

import asyncio
from itertools import cycle, islice

import pytest

from app.state.base import Bucket, Demand, Limiter
from tests.support import unique


def bucket(capacity: int, key: str = "", take: int = 1) -> Bucket:
    return Bucket("requests", key or unique("key"), capacity, take)


async def admitted(limiters: list[Limiter], demand: Demand, times: int) -> int:
    """How many of so many demands at once pass, over all limiters in turn."""
    turns = islice(cycle(limiters), times)
    answers = await asyncio.gather(*[limiter.admit(demand) for limiter in turns])
    return sum(answer.admitted for answer in answers)


@pytest.mark.parametrize("capacity", [1, 2, 60])
async def test_exactly_the_capacity_passes_at_once(limiters: list[Limiter], capacity: int) -> None:
    demand = Demand((bucket(capacity),))
    loop = asyncio.get_running_loop()
    began = loop.time()
    passed = await admitted(limiters, demand, 500)
    assert capacity <= passed <= capacity + (loop.time() - began) * capacity / 60


async def test_never_more_than_the_capacity_and_its_refill(limiters: list[Limiter]) -> None:
    """A hundred a second for long enough that some refills, over all limiters at once."""
    demand = Demand((bucket(6000),))
    loop = asyncio.get_running_loop()
    began, passed = loop.time(), 0
    while passed < 6010:
        passed += await admitted(limiters, demand, 400)
        assert passed <= 6000 + (loop.time() - began) * 100


async def test_a_refusal_takes_nothing(limiters: list[Limiter]) -> None:
    narrow, wide = bucket(1), bucket(100)
    both = Demand((narrow, wide))
    assert await admitted(limiters, both, 10) == 1
    assert await admitted(limiters, Demand((wide,)), 150) == 99


async def test_units_are_taken_together_or_not_at_all(limiters: list[Limiter]) -> None:
    key = unique("key")
    three = Demand((bucket(5, key, take=3),))
    two = Demand((bucket(5, key, take=2),))
    assert await admitted(limiters, three, 2) == 1
    assert await admitted(limiters, two, 2) == 1


async def test_more_than_a_full_bucket_never_passes(limiters: list[Limiter]) -> None:
    assert await admitted(limiters, Demand((bucket(5, take=6),)), 1) == 0


async def test_what_is_left_is_told(limiters: list[Limiter]) -> None:
    demand = Demand((bucket(2),))
    told = [await limiters[-1].admit(demand) for _ in range(3)]
    assert [admission.admitted for admission in told] == [True, True, False]
    assert [admission.levels[0].remaining for admission in told] == [1, 0, 0]
    assert [admission.levels[0].wait_seconds for admission in told] == pytest.approx(
        [0, 30, 30], abs=1
    )
    assert [admission.levels[0].reset_seconds for admission in told] == pytest.approx(
        [30, 60, 60], abs=1
    )


async def test_after_the_wait_it_passes(limiters: list[Limiter]) -> None:
    demand = Demand((bucket(600),))
    while (admission := await limiters[0].admit(demand)).admitted:
        pass
    await asyncio.sleep(admission.longest_wait.wait_seconds)
    assert (await limiters[-1].admit(demand)).admitted


async def test_the_tightest_and_the_longest_wait_are_found(limiters: list[Limiter]) -> None:
    narrow, wide = bucket(1), bucket(100)
    both = Demand((wide, narrow))
    first, second = [await limiters[0].admit(both) for _ in range(2)]
    assert first.tightest.bucket is narrow
    assert second.longest_wait.bucket is narrow


async def test_it_answers(limiters: list[Limiter]) -> None:
    for limiter in limiters:
        await limiter.check()
