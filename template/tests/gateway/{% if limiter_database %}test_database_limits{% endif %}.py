"""Limits in the database: shared transactions, no deadlocks, and refusal in doubt."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import permutations
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from app import wiring
from app.settings import Settings
from gateway.db.engine import Database
from gateway.errors import LimiterUnavailable
from gateway.rate_limits import database as module
from gateway.rate_limits.base import AcquireRequest, Bucket, Limiter, Slot
from gateway.rate_limits.database import DatabaseLimiter, limits
from tests.fixtures.service import Start
from tests.support import (
    PATIENCE_SECONDS,
    PROMISED_SECONDS,
    chat,
    error_of,
    free_time,
    leave_with_the_answer,
    unique,
)


def a_request(capacity: int = 5, key: str = "") -> AcquireRequest:
    return AcquireRequest((Bucket("requests", key or unique("key"), capacity),))


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = wiring.database.open_database(Settings(_env_file=None, database_url=url).gateway)
    yield database
    await database.close()


@asynccontextmanager
async def locked(database: Database) -> AsyncIterator[None]:
    """As another process does that hangs in a transaction."""
    loop, begun, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hold(connection: Connection) -> None:
        connection.execute(update(limits).values(until=limits.c.until))
        loop.call_soon_threadsafe(begun.set)
        over.wait(PATIENCE_SECONDS)

    holding = asyncio.create_task(database.transact(hold, 30))
    await begun.wait()
    try:
        yield
    finally:
        over.set()
        await holding


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the time-outs of production, where requests fail within a second."""
    monkeypatch.setattr(Database, "patience_seconds", 0.9)


async def test_waiting_requests_share_a_transaction(
    limiters: list[Limiter], commits: list[object]
) -> None:
    requests = [a_request() for _ in range(20)]
    slots = tuple(Slot(unique("key"), 50, "holder", 30) for _ in range(2))
    await asyncio.gather(*map(limiters[0].acquire, [*requests, AcquireRequest((), slots)]))
    commits.clear()
    work = [limiters[0].acquire(AcquireRequest(each.buckets, slots)) for each in requests]
    answers = await asyncio.gather(*work, *map(limiters[0].release, requests))
    assert all(answer.admitted for answer in answers if answer)
    assert len(commits) == 1


async def test_transactions_do_not_deadlock(limiters: list[Limiter]) -> None:
    """Both want the same rows, named in all orders, some of them new."""
    passed = 0
    for _ in range(10):
        keys = [unique("key") for _ in range(6)]
        work = []
        for turn, chosen in enumerate(permutations(keys, 3)):
            buckets = tuple(Bucket("requests", key, 10) for key in chosen)
            slots = tuple(Slot(key, 10, unique("holder"), 30) for key in reversed(chosen))
            work.append(limiters[turn % 2].acquire(AcquireRequest(buckets, slots)))
        answers = await asyncio.gather(*work)
        passed += sum(answer.admitted for answer in answers)
    # Each takes three of sixty units; what is over may not fit any three keys.
    assert 10 * 15 <= passed <= 10 * 20


async def test_a_database_that_is_not_there(dead_database_url: str, impatient: None) -> None:
    async with opened(dead_database_url) as database:
        limiter = DatabaseLimiter(database)
        work = [limiter.acquire(a_request()) for _ in range(20)]
        async with free_time() as passed:
            answers = await asyncio.gather(*work, limiter.check(), return_exceptions=True)
        assert passed() < PROMISED_SECONDS
        assert {type(answer) for answer in answers} == {LimiterUnavailable}


async def test_locked_rows_refuse_requests_in_time(database_url: str, impatient: None) -> None:
    """Requests are refused in time, and take nothing later."""
    key = unique("key")
    async with opened(database_url) as database, opened(database_url) as other:
        limiter = DatabaseLimiter(database)
        assert (await limiter.acquire(a_request(20, key))).admitted
        async with locked(other):
            work: list[Any] = [limiter.acquire(a_request(20, key)) for _ in range(10)]
            async with free_time() as passed:
                answers = await asyncio.gather(*work, return_exceptions=True)
            assert passed() < PROMISED_SECONDS
            assert {type(answer) for answer in answers} == {LimiterUnavailable}
        await other.check()
        after = await limiter.acquire(a_request(20, key))
        assert after.buckets[0].remaining == 18
        await limiter.close()


async def test_rows_that_others_keep_for_a_while_are_waited_for(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For longer than one try: a long queue is not an outage."""
    monkeypatch.setattr(module, "LOCK_TRIES", 10)
    key = unique("key")
    async with opened(database_url) as database, opened(database_url) as other:
        limiter = DatabaseLimiter(database)
        await limiter.acquire(a_request(20, key))
        async with locked(other):
            waiting = asyncio.create_task(limiter.acquire(a_request(20, key)))
            await asyncio.sleep(0.6)
        assert (await waiting).admitted
        await limiter.close()


async def test_a_service_without_the_rows_refuses(start: Start, impatient: None) -> None:
    service = await start()
    client = service.client(await service.create_user())
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    async with locked_elsewhere(service.settings.database_url):
        response = await client.post("/v1/chat/completions", json=chat())
        assert error_of(response) == (503, "limiter_unavailable", None)
        assert response.headers["Retry-After"] == "1"
        assert (await client.get("/livez")).status_code == 200
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_units_of_a_cancelled_caller_are_given_back(limiters: list[Limiter]) -> None:
    slot = Slot(unique("key"), 1, "leaving", 30)
    leaving = asyncio.create_task(limiters[0].acquire(AcquireRequest(a_request().buckets, (slot,))))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await limiters[0].close()
    following = AcquireRequest((), (slot._replace(holder="next"),))
    assert (await limiters[-1].acquire(following)).admitted


async def test_units_of_a_caller_that_leaves_with_the_answer_are_given_back(
    limiters: list[Limiter],
) -> None:
    key = unique("key")
    wanted = AcquireRequest((Bucket("tokens", key, 5, 5),), (Slot(key, 1, "leaving", 30),))
    await leave_with_the_answer(limiters[0].acquire(wanted))
    following = wanted._replace(slots=(wanted.slots[0]._replace(holder="next"),))
    assert (await limiters[0].acquire(following)).admitted


async def test_rows_without_effect_are_removed(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_SECONDS", 0)
    monkeypatch.setattr(module, "KEPT", 0)
    async with opened(database_url) as database:
        limiter = DatabaseLimiter(database)
        await limiter.set("old", "value", 0)
        await limiter.set("young", "value", 60)
        bucket, slot = Bucket("tokens", "bucket", 5), Slot("slot", 1, "holder", 60)
        await limiter.acquire(AcquireRequest((bucket,), (slot,)))
        rows = await database.fetch(select(limits.c.name))
    assert {row.name for row in rows} == {"memory:young", "bucket:bucket", "slot:slot"}


async def test_used_rows_survive_sweeps(limiters: list[Limiter]) -> None:
    await limiters[0].set("old", "value", 0)
    await limiters[0].set("young", "value", 60)
    old, young, unknown = await limiters[-1].get(["old", "young", "unknown"])
    assert (old, unknown) == (None, None)
    assert young is not None
    assert young.value == "value"
    assert young.seconds == pytest.approx(60, abs=2)


@asynccontextmanager
async def locked_elsewhere(url: str) -> AsyncIterator[None]:
    async with opened(url) as database, locked(database):
        yield
