"""Time-outs: counted in time in which the event loop was free to read."""

import asyncio
import socket

import pytest

from gateway.patience import is_done, within
from tests.support import busy


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
async def test_an_answer_that_has_arrived_unread_does_not_time_out(turns: int) -> None:
    """Other work blocks the loop for longer than the time-out, before and after the answer."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)

        async def ask() -> bytes:
            await loop.sock_sendall(ours, b"?")
            theirs.sendall(b"!" + theirs.recv(1))
            return await loop.sock_recv(ours, 2)

        async with busy(0.02, turns):
            for _ in range(3):
                assert await within(ask(), 0.01) == b"!?"


async def test_a_missing_answer_times_out() -> None:
    left = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    with pytest.raises(TimeoutError):
        await within(hang(), 0.01)
    await left.wait()


async def test_a_caller_that_leaves_ends_the_work() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    asked = asyncio.create_task(within(hang(), 60))
    await begun.wait()
    asked.cancel()
    await left.wait()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_an_error_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise ArithmeticError("the reason")

    with pytest.raises(ArithmeticError, match="the reason"):
        await within(fail(), 60)


async def test_work_that_is_done_is_not_waited_for() -> None:
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    assert not await is_done(done, 0.01)
    done.set_result(None)
    assert await is_done(done, 60)
