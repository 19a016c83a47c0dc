"""Retention: old content is erased in small steps; costs, sums and audit stay."""

import asyncio
import datetime as dt

import httpx2
import pytest
from sqlalchemy import Connection, select, update

from gateway.db.tables import attempts, audit, jobs, predictions, utc_now
from gateway.ledger import retention
from gateway.ledger.retention import MAX_AT_ONCE, Retention
from tests.factories import prediction
from tests.fixtures.service import Start
from tests.ledger_helpers import check_accounts
from tests.support import Service, User, chat, eventually, unique

DAYS = 30
OLD, NEW = dt.timedelta(days=DAYS + 1), dt.timedelta(days=DAYS - 1)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAUSE_SECONDS", 0.0)


async def _made(service: Service, user: User, count: int = 1, age: dt.timedelta = OLD) -> None:
    content = {"input": {"prompt": "secret"}, "output": "secret", "feedback": {"rating": "up"}}
    rows = [
        prediction(
            user, utc_now() - age, status="succeeded", rating="up", cost_nano_usd=7, **content
        )
        for _ in range(count)
    ]
    await service.write(*rows)


async def test_old_content_is_erased_and_costs_stay(service: Service, user: User) -> None:
    await _made(service, user)
    await _made(service, user, age=NEW)
    await Retention(service.database, DAYS).sweep()
    old, new = await service.rows(predictions)
    assert (old.input, old.output, old.feedback, old.rating) == (None, None, None, None)
    assert (old.cost_nano_usd, old.erased_at is not None) == (7, True)
    assert (new.input, new.erased_at) == ({"prompt": "secret"}, None)


async def test_ledger_and_audit_are_untouched(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = unique("canary")
    await client.post("/v1/chat/completions", json=chat(canary), headers={"Idempotency-Key": "k"})
    tables = (attempts, audit)
    before = [await service.rows(table) for table in tables], await check_accounts(service)
    later = utc_now() + OLD
    monkeypatch.setattr(retention, "utc_now", lambda: later)
    await Retention(service.database, DAYS).sweep()
    row = await service.prediction()
    assert canary not in repr(row)
    assert row.cost_nano_usd > 0
    assert before == (
        [await service.rows(table) for table in tables],
        await check_accounts(service),
    )
    again = await client.post(
        "/v1/chat/completions", json=chat(canary), headers={"Idempotency-Key": "k"}
    )
    assert again.status_code == 409


async def test_it_goes_on_where_it_stopped(service: Service, user: User) -> None:
    await _made(service, user, MAX_AT_ONCE + 1)
    job = Retention(service.database, DAYS)
    assert await service.database.transact(job._erase_some) == MAX_AT_ONCE
    rows = await service.rows(predictions)
    (state,) = await service.database.fetch(select(jobs))
    assert state.cursor == rows[MAX_AT_ONCE - 1].id
    assert [row.erased_at is None for row in rows] == [False] * MAX_AT_ONCE + [True]
    next_process = Retention(service.database, DAYS)
    assert await service.database.transact(next_process._erase_some) == 1
    assert await service.database.transact(next_process._erase_some) == 0


async def test_users_may_have_erased_before(service: Service, user: User) -> None:
    await _made(service, user)
    at = utc_now() - dt.timedelta(days=3)
    await service.write(update(predictions).values(erased_at=at))
    await Retention(service.database, DAYS).sweep()
    assert (await service.prediction()).erased_at == at


async def test_the_running_service_erases_by_itself(start: Start) -> None:
    service = await start()
    await _made(service, await service.create_user())
    await service.stop()
    service = await start(prediction_retention_days=DAYS)

    async def is_erased() -> bool:
        return (await service.prediction()).erased_at is not None

    await eventually(is_erased)


async def test_zero_days_keep_everything(service: Service, user: User) -> None:
    assert service.settings.prediction_retention_days == 0
    assert not [task for task in service.engine.loops if "Retention" in repr(task.get_coro())]


async def test_one_replica_works_at_a_time(service: Service, user: User) -> None:
    """The job's row is locked: another replica leaves the batch to this one, and waits for none."""
    await _made(service, user)
    one, other = (Retention(service.database, DAYS) for _ in range(2))
    loop = asyncio.get_running_loop()
    seen: list[int] = []

    def both(connection: Connection) -> int:
        done = one._erase_some(connection)
        # Where a file is the database, transactions take turns.
        if connection.dialect.name == "postgresql":
            between = service.database.transact(other._erase_some)
            seen.append(asyncio.run_coroutine_threadsafe(between, loop).result(10))
        return done

    assert await service.database.transact(both) == 1
    assert seen in ([], [0])
