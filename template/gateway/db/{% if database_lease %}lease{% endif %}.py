"""A lease in the database: only one process serves, since its limits are in its memory."""

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy import Column, String, Table, delete, func, or_, text
from sqlalchemy.dialects.postgresql import insert

from gateway.config import GatewayConfig
from gateway.db.engine import Database
from gateway.db.tables import UtcDateTime, metadata
from gateway.errors import DatabaseUnavailable, StartError
from gateway.ids import new_id
from gateway.telemetry.logging import log

NAME = "service"
LEASE = text("interval '15 seconds'")
RENEWAL_SECONDS = 5.0
PATIENCE_SECONDS = 10.0
INTERVAL_SECONDS = 0.5

leases = Table(
    "leases",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("holder", String(40), nullable=False),
    Column("until", UtcDateTime, nullable=False),
)


@asynccontextmanager
async def single_instance_lock(_: GatewayConfig, database: Database) -> AsyncIterator[None]:
    """Hold the lease for this process, by the database's clock.

    Waits a few seconds for an earlier process to stop, then raises `StartError`. Later, if another
    process has taken the lease, this one gets SIGTERM.
    """
    holder = new_id("proc")
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while not await _take(database, holder):
        if time.monotonic() > give_up_at:
            raise StartError(
                "Another process serves from this database. Limits in memory belong to one "
                "process: stop the other one, or wait until it has stopped."
            )
        await asyncio.sleep(INTERVAL_SECONDS)
    renewal = asyncio.create_task(_renew(database, holder))
    try:
        yield
    finally:
        renewal.cancel()
        with suppress(DatabaseUnavailable):
            await _give_back(database, holder)


async def _take(database: Database, holder: str) -> bool:
    """Take the lease, or renew it; false while another process holds it."""
    until = func.now() + LEASE
    free = or_(leases.c.holder == holder, leases.c.until < func.now())
    statement = (
        insert(leases)
        .values(name=NAME, holder=holder, until=until)
        .on_conflict_do_update(
            index_elements=[leases.c.name], set_={"holder": holder, "until": until}, where=free
        )
        .returning(leases.c.holder)
    )
    taken = await database.transact(lambda connection: connection.execute(statement).all())
    return bool(taken)


async def _renew(database: Database, holder: str) -> None:
    pause = RENEWAL_SECONDS
    while True:
        await asyncio.sleep(pause)
        try:
            kept = await _take(database, holder)
        except Exception as error:
            # No generation starts without a database. Once it is back, the lease may have expired.
            if not isinstance(error, DatabaseUnavailable):
                log(logging.ERROR, "The renewal of the lease crashed", error=error)
            pause = INTERVAL_SECONDS
            continue
        pause = RENEWAL_SECONDS
        if not kept:
            log(logging.CRITICAL, "Another process took over; this one stops")
            os.kill(os.getpid(), signal.SIGTERM)


async def _give_back(database: Database, holder: str) -> None:
    mine = delete(leases).where(leases.c.holder == holder)
    await database.transact(lambda connection: connection.execute(mine))
