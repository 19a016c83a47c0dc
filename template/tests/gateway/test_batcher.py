"""The batcher: waiting items share a call, single items do not wait, failures stay apart."""

import asyncio
from collections.abc import Sequence
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.batcher import MAX_AT_ONCE, Batcher
from tests.support import leave_with_the_answer


class Handler:
    """Doubles numbers and refuses negative ones. `calls` holds its batches."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.entered = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, items: list[int]) -> Sequence[int | Exception]:
        self.calls.append(items)
        self.entered.set()
        await self.gate.wait()
        return [2 * item if item >= 0 else ValueError(item) for item in items]


async def test_a_single_item_does_not_wait() -> None:
    handler = Handler()
    assert await Batcher(handler).submit(1) == 2
    assert handler.calls == [[1]]


async def test_items_that_wait_at_the_same_time_share_a_call() -> None:
    handler = Handler()
    batcher = Batcher(handler)
    assert await asyncio.gather(*map(batcher.submit, range(5))) == [0, 2, 4, 6, 8]
    assert handler.calls == [[0, 1, 2, 3, 4]]


async def test_items_that_arrive_while_a_call_runs_go_with_the_next_one() -> None:
    handler = Handler()
    handler.gate.clear()
    batcher = Batcher(handler)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(batcher.submit(0))
        await handler.entered.wait()
        later = [tasks.create_task(batcher.submit(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        assert handler.calls == [[0]]
        handler.gate.set()
    assert handler.calls == [[0], [1, 2, 3]]
    assert [task.result() for task in later] == [2, 4, 6]


async def test_a_call_takes_a_bounded_number_of_items() -> None:
    handler = Handler()
    batcher = Batcher(handler)
    count = MAX_AT_ONCE + 1
    assert await asyncio.gather(*map(batcher.submit, range(count))) == list(range(0, 2 * count, 2))
    assert [len(call) for call in handler.calls] == [MAX_AT_ONCE, 1]


async def test_a_failed_item_does_not_affect_the_others() -> None:
    batcher = Batcher(Handler())
    work = map(batcher.submit, (1, -1, 2))
    first, failed, last = await asyncio.gather(*work, return_exceptions=True)
    assert (first, last) == (2, 4)
    assert isinstance(failed, ValueError)


async def test_an_error_of_the_handler_reaches_the_callers_of_its_batch_only() -> None:
    calls = 0

    async def handle(items: list[int]) -> list[int]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("gone")
        return items

    batcher = Batcher(handle)
    work = (batcher.submit(1), batcher.submit(2))
    errors = await asyncio.gather(*work, return_exceptions=True)
    assert [type(error) for error in errors] == [OSError, OSError]
    assert await batcher.submit(3) == 3


async def test_a_handler_that_loses_a_result_is_an_error_for_its_callers() -> None:
    async def handle(items: list[int]) -> list[int]:
        return items[1:]

    batcher = Batcher(handle)
    async with asyncio.timeout(5):
        with pytest.raises(AssertionError, match="a result for each item"):
            await batcher.submit(1)


async def test_an_outage_is_raised_to_all_waiting_callers() -> None:
    handler = Handler()
    handler.gate.clear()

    async def handle(items: list[int]) -> Sequence[int | Exception]:
        await handler(items)
        raise ConnectionError("gone")

    batcher = Batcher(handle, outage=OSError)
    asked = asyncio.create_task(batcher.submit(1))
    await handler.entered.wait()
    waiting = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    handler.gate.set()
    answers = await asyncio.gather(asked, waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError]
    assert handler.calls == [[1]]


async def test_an_item_is_handled_even_when_its_caller_left() -> None:
    handler = Handler()
    batcher = Batcher(handler)
    leaving = asyncio.create_task(batcher.submit(1))
    staying = asyncio.create_task(batcher.submit(2))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == 4
    assert handler.calls == [[1, 2]]
    assert leaving.cancelled()


async def test_a_caller_that_leaves_during_the_call_does_not_stop_it() -> None:
    handler = Handler()
    handler.gate.clear()
    batcher = Batcher(handler)
    leaving = asyncio.create_task(batcher.submit(1))
    await handler.entered.wait()
    staying = asyncio.create_task(batcher.submit(2))
    leaving.cancel()
    handler.gate.set()
    assert await staying == 4
    assert handler.calls == [[1], [2]]


async def test_an_abandoned_result_is_reported() -> None:
    handler = Handler()
    handler.gate.clear()
    results: list[tuple[int, int]] = []
    batcher = Batcher(handler, abandoned=lambda item, result: results.append((item, result)))
    work = [asyncio.create_task(batcher.submit(number)) for number in (1, 2, -3)]
    await handler.entered.wait()
    work[1].cancel()
    work[2].cancel()
    handler.gate.set()
    assert await work[0] == 2
    await batcher.drain()
    assert results == [(2, 4)]


@pytest.mark.parametrize(("item", "known"), [(1, [(1, 2)]), (-1, [])])
async def test_a_result_at_the_moment_of_cancellation_is_reported(
    item: int, known: list[tuple[int, int]]
) -> None:
    results: list[tuple[int, int]] = []
    batcher = Batcher(Handler(), abandoned=lambda item, result: results.append((item, result)))
    await leave_with_the_answer(batcher.submit(item))
    assert results == known


async def test_drain_waits_for_what_runs_and_what_waits() -> None:
    handler = Handler()
    handler.gate.clear()
    batcher = Batcher(handler)
    running = asyncio.create_task(batcher.submit(1))
    await handler.entered.wait()
    waiting = asyncio.create_task(batcher.submit(2))
    drained = asyncio.create_task(batcher.drain())
    await asyncio.sleep(0)
    assert not drained.done()
    handler.gate.set()
    await drained
    assert handler.calls == [[1], [2]]
    assert [await running, await waiting] == [2, 4]


async def test_drain_of_nothing_returns() -> None:
    async with asyncio.timeout(5):
        await Batcher(Handler()).drain()


@given(st.lists(st.integers(0, 9), max_size=30))
def test_every_caller_gets_the_result_of_its_own_item(pauses: list[int]) -> None:
    async def submit(batcher: Batcher[int, int], item: int) -> int:
        for _ in range(pauses[item]):
            await asyncio.sleep(0)
        return await batcher.submit(item)

    async def run() -> None:
        handler = Handler()
        batcher = Batcher(handler)
        results = await asyncio.gather(*(submit(batcher, item) for item in range(len(pauses))))
        assert results == [2 * item for item in range(len(pauses))]
        assert sorted(chain.from_iterable(handler.calls)) == list(range(len(pauses)))

    asyncio.run(run())
