"""The lease: one process serves alone, and its successor waits or takes over."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import httpx2
import pytest
from sqlalchemy import Row, select, text, update

from app import wiring
from app.settings import Settings
from gateway.config import GatewayConfig
from gateway.db import lease
from gateway.db.engine import Database
from gateway.db.lease import leases, single_instance_lock
from gateway.errors import DatabaseUnavailable, StartError
from tests.fixtures.service import Start
from tests.support import Service, chat, eventually


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "INTERVAL_SECONDS", 0.02)


@pytest.fixture
def chosen(database_url: str) -> GatewayConfig:
    return Settings(_env_file=None, database_url=database_url).gateway


@pytest.fixture
async def database(chosen: GatewayConfig) -> AsyncIterator[Database]:
    opened = wiring.database.open_database(chosen)
    yield opened
    await opened.close()


async def _row(database: Database) -> Row[tuple[object, ...]] | None:
    return await database.fetch_one(select(leases))


async def _lapse(database: Database) -> None:
    """The lease of a process that was killed."""
    until = text("now() - interval '1 second'")
    statement = update(leases).values(until=until)
    await database.transact(lambda connection: connection.execute(statement))


async def _expect_renewal(database: Database) -> None:
    """The holder renews its lease."""
    first = await _row(database)
    assert first

    async def renewed() -> bool:
        later = await _row(database)
        return later is not None and later.until > first.until

    await eventually(renewed)
    later = await _row(database)
    assert later
    assert later.holder == first.holder


async def test_a_second_holder_is_refused(chosen: GatewayConfig, database: Database) -> None:
    async with single_instance_lock(chosen, database):
        started = time.monotonic()
        with pytest.raises(StartError, match="Another process serves from this database"):
            async with single_instance_lock(chosen, database):
                pytest.fail("two hold the lease")
        assert time.monotonic() - started >= 0.1
        assert await _row(database) is not None


async def test_a_released_lease_is_free_at_once(chosen: GatewayConfig, database: Database) -> None:
    for _ in range(3):
        async with single_instance_lock(chosen, database):
            assert await _row(database) is not None
        assert await _row(database) is None


async def test_it_is_released_when_the_service_fails(
    chosen: GatewayConfig, database: Database
) -> None:
    with pytest.raises(ArithmeticError):
        async with single_instance_lock(chosen, database):
            raise ArithmeticError
    assert await _row(database) is None


async def test_a_successor_waits(
    chosen: GatewayConfig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "PATIENCE_SECONDS", 10)
    entered = asyncio.Event()

    async def succeed() -> None:
        async with single_instance_lock(chosen, database):
            entered.set()

    async with single_instance_lock(chosen, database):
        successor = asyncio.create_task(succeed())
        await asyncio.sleep(0.1)
        assert not entered.is_set()
    await successor
    assert entered.is_set()


async def test_a_lapsed_lease_is_taken(chosen: GatewayConfig, database: Database) -> None:
    async with single_instance_lock(chosen, database):
        first = await _row(database)
        await _lapse(database)
        async with single_instance_lock(chosen, database):
            second = await _row(database)
            assert first
            assert second
            assert first.holder != second.holder
            assert second.until > first.until


async def test_a_lease_is_renewed_while_it_is_held(
    chosen: GatewayConfig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    async with single_instance_lock(chosen, database):
        await _expect_renewal(database)


@pytest.mark.parametrize("fault", [DatabaseUnavailable("It is gone."), ArithmeticError()], ids=repr)
async def test_a_renewal_that_failed_is_tried_again_at_once(
    chosen: GatewayConfig, database: Database, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    """After an outage longer than the lease, a process must not serve without it."""
    take, failed = lease._take, asyncio.Event()

    async def fail_once(database: Database, holder: str) -> bool:
        if failed.is_set():
            return await take(database, holder)
        failed.set()
        monkeypatch.setattr(lease, "RENEWAL_SECONDS", 3600)
        raise fault

    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.02)
    async with single_instance_lock(chosen, database):
        monkeypatch.setattr(lease, "_take", fail_once)
        await failed.wait()
        await _expect_renewal(database)


async def test_a_process_that_lost_the_lease_stops(
    chosen: GatewayConfig, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hung for longer than its lease must not serve next to its successor."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    try:
        monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.05)
        async with single_instance_lock(chosen, database):
            taken = {"holder": "another", "until": text("now() + interval '1 minute'")}
            await database.transact(
                lambda connection: connection.execute(update(leases).values(taken))
            )
            async with asyncio.timeout(5):
                await stopped.wait()
        row = await _row(database)
        assert row
        assert row.holder == "another"
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def test_a_service_gives_it_back_when_it_stops(start: Start) -> None:
    for _ in range(2):
        service = await start()
        assert (await _ask(service)).status_code == 200
        await service.stop()


async def _ask(service: Service) -> httpx2.Response:
    client = service.client(await service.create_user())
    return await client.post("/v1/chat/completions", json=chat())
