"""Turns for hashes: few at a time, fair between callers, bounded, and none is lost."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from gateway.accounts.turns import NoTurn, Turns
from tests.support import eventually

Work = Callable[[str], Awaitable[None]]


class Workers:
    """Work in turns, each piece of which ends when the test lets it."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.ends = asyncio.Semaphore(0)

    async def work(self, name: str, *, first: bool = False) -> None:
        """A piece of the caller that the name begins with."""
        async with self.turns.turn(name[0], first=first):
            self.begun.append(name)
            await self.ends.acquire()

    def start(self, *names: str, first: bool = False) -> list[asyncio.Task[None]]:
        return [asyncio.create_task(self.work(name, first=first)) for name in names]

    async def all_of(self, tasks: list[asyncio.Task[None]]) -> None:
        for _ in tasks:
            self.ends.release()
        await asyncio.gather(*tasks)


async def waiting(seconds: float = 60, most: int = 10) -> tuple[Workers, list[asyncio.Task[None]]]:
    """Workers of whom one works, which the others wait for."""
    workers = Workers(Turns(1, most, seconds))
    (task,) = workers.start("w0")

    async def has_begun() -> bool:
        return workers.begun == ["w0"]

    await eventually(has_begun)
    return workers, [task]


async def test_callers_take_turns_and_the_first_class_goes_before() -> None:
    workers, tasks = await waiting()
    tasks += workers.start("a1", "a2", "a3", "b1", "c1", "b2")
    await asyncio.sleep(0)
    tasks += workers.start("d1", "d2", first=True)
    await asyncio.sleep(0)
    await workers.all_of(tasks)
    assert workers.begun == ["w0", "d1", "d2", "a1", "b1", "c1", "a2", "b2", "a3"]


async def test_so_many_work_at_once() -> None:
    workers = Workers(Turns(3, 10, 60))
    tasks = workers.start(*"abcde")
    for _ in range(3):
        await asyncio.sleep(0)
    assert workers.begun == list("abc")
    await workers.all_of(tasks)
    assert workers.begun == list("abcde")


async def test_when_all_places_are_taken_the_longest_queue_loses_its_last() -> None:
    workers, tasks = await waiting(most=3)
    flood = workers.start("a1", "a2", "a3", "a4")
    await asyncio.sleep(0)
    others = workers.start("b1", "c1")
    await asyncio.sleep(0)
    newest = workers.start("d1")
    await asyncio.sleep(0)
    await workers.all_of([*tasks, flood[0], *others])
    for task in (*flood[1:], *newest):
        with pytest.raises(NoTurn):
            await task
    assert workers.begun == ["w0", "a1", "b1", "c1"]


async def test_those_of_the_first_class_have_places_of_their_own() -> None:
    workers, tasks = await waiting(most=1)
    tasks += workers.start("a1")
    await asyncio.sleep(0)
    tasks += workers.start("b1", first=True)
    await asyncio.sleep(0)
    await workers.all_of(tasks)
    assert workers.begun == ["w0", "b1", "a1"]


async def test_a_turn_that_does_not_come_in_time() -> None:
    workers, tasks = await waiting(seconds=0.01)
    (late,) = workers.start("a1")
    with pytest.raises(NoTurn):
        await late
    await workers.all_of(tasks)
    workers.ends.release()
    await workers.work("b1")
    assert workers.begun == ["w0", "b1"]


async def test_one_that_leaves_is_passed_over() -> None:
    workers, tasks = await waiting()
    leaving, staying = workers.start("a1", "b1")
    await asyncio.sleep(0)
    leaving.cancel()
    await workers.all_of([*tasks, staying])
    assert leaving.cancelled()
    assert workers.begun == ["w0", "b1"]


@pytest.mark.parametrize("ends_first", [False, True])
async def test_a_turn_that_comes_to_one_that_leaves_goes_to_the_next(ends_first: bool) -> None:
    """In whichever order both happen within one turn of the event loop."""
    workers = Workers(Turns(1, 10, 60))
    async with workers.turns.turn("w"):
        leaving, staying = workers.start("a1", "b1")
        await asyncio.sleep(0)
        if not ends_first:
            leaving.cancel()
    if ends_first:
        leaving.cancel()
    await workers.all_of([staying])
    assert workers.begun == ["b1"]
    assert leaving.cancelled()


async def test_work_that_fails_gives_its_turn_back() -> None:
    turns = Turns(1, 1, 60)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            async with turns.turn("a"):
                raise ZeroDivisionError
