"""Transactions time out by the time of the database, not by that of this process."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, Integer, bindparam, create_engine, insert, select, text

from app import wiring
from app.settings import Settings
from gateway.db.cancel_handle import CancelHandle
from gateway.db.engine import PATIENT_READERS, READERS, Database, Query
from gateway.db.tables import stops, utc_now
from gateway.errors import DatabaseUnavailable
from tests.support import Service


async def test_time_that_others_take_in_this_process_is_not_held_against_it(
    database_url: str,
) -> None:
    database = wiring.database.open_database(
        Settings(_env_file=None, database_url=database_url).gateway
    )
    over = threading.Event()
    asked = asyncio.create_task(database.transact(lambda _: over.wait(10), 0.2))
    await asyncio.sleep(0)
    time.sleep(0.25)  # noqa: ASYNC251 - nothing else happens in this process meanwhile
    over.set()
    assert await asked
    await database.close()


async def test_a_slow_transaction_times_out(database_url: str) -> None:
    database = wiring.database.open_database(
        Settings(_env_file=None, database_url=database_url).gateway
    )
    over = threading.Event()
    with pytest.raises(DatabaseUnavailable):
        await database.transact(lambda _: over.wait(10), 0.05)
    over.set()
    await database.close()


async def test_slow_reads_do_not_block_others(database_url: str) -> None:
    database = wiring.database.open_database(
        Settings(_env_file=None, database_url=database_url).gateway
    )
    over = threading.Event()
    report = select(bindparam("held", callable_=lambda: int(over.wait(10)), type_=Integer))
    count = READERS + PATIENT_READERS
    reports = [asyncio.create_task(database.fetch(report, seconds=20)) for _ in range(count)]
    await asyncio.sleep(0)
    try:
        assert await database.fetch(text("SELECT 1")) == [(1,)]
    finally:
        over.set()
        assert await asyncio.gather(*reports) == [[(1,)]] * count
        await database.close()


async def test_a_connection_that_was_broken_off_as_its_work_was_through_is_not_used_again(
    service: Service,
) -> None:
    engine, cancel_handle = create_engine(service.database._engine.url), CancelHandle()
    with engine.connect() as connection:
        with cancel_handle.of(connection):
            cancel_handle.cancel_query(lambda _: None)
        assert connection.invalidated
    engine.dispose()


def plainly(database: Database, connection: Connection, row: dict[str, Any]) -> None:
    connection.execute(insert(stops), [row])


def in_one_go(database: Database, connection: Connection, row: dict[str, Any]) -> None:
    rows = database.rows(list(stops.c))
    inserting = insert(stops).from_select(stops.c.keys(), select(*rows.values()))
    database.write_last(connection, [Query(inserting, [row])])


@pytest.mark.parametrize("write", [plainly, in_one_go])
@pytest.mark.parametrize("leave", [False, True], ids=["too slow", "cancelled"])
async def test_an_abandoned_transaction_is_rolled_back(
    service: Service, write: Callable[..., None], leave: bool
) -> None:
    """The transaction has begun, and ends after its caller has timed out."""
    database = wiring.database.open_database(service.settings.gateway)
    loop, begun, over = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    row = {"target": "service", "kind": "stopped", "reason": "", "running": False, "at": utc_now()}

    def work(connection: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        over.wait(10)
        write(database, connection, {**row, "actor_id": None})

    asked = asyncio.create_task(database.transact(work, 10 if leave else 0.2))
    if leave:
        await begun.wait()
        asked.cancel()
    (error,) = await asyncio.gather(asked, return_exceptions=True)
    assert isinstance(error, asyncio.CancelledError if leave else DatabaseUnavailable)
    over.set()
    await database.close()
    assert await service.database.fetch(select(stops)) == []
