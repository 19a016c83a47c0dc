"""Erases the content of old predictions, as their users could do themselves.

The ledger, the audit and the sums stay. The work is done in small transactions. Each takes the row
of the job, so that one replica works at a time, and stores how far it has come.
"""

import asyncio
import datetime as dt
import logging

from sqlalchemy import Connection, select, update

from gateway.background import repeat
from gateway.db.engine import Database
from gateway.db.tables import jobs, predictions, utc_now
from gateway.idempotency.store import erasing
from gateway.ids import id_at
from gateway.ledger.records import ERASED
from gateway.telemetry.logging import log

JOB = "retention"
MAX_AT_ONCE = 50
# The ledger may write between two batches; a database may have one writer.
PAUSE_SECONDS = 0.1
POLL_SECONDS = 600.0


class Retention:
    """Erases predictions that are older than `days` while the service runs."""

    def __init__(self, database: Database, days: int) -> None:
        self._database = database
        self._kept = dt.timedelta(days=days)

    async def run(self) -> None:
        """Erase every POLL_SECONDS until the service ends."""
        await repeat(self.sweep, POLL_SECONDS)

    async def sweep(self) -> None:
        """Erase all that is old enough, batch by batch. Raises `DatabaseUnavailable`."""
        count = 0
        while done := await self._database.transact(self._erase_some):
            count += done
            await asyncio.sleep(PAUSE_SECONDS)
        if count:
            log(logging.INFO, "The content of old predictions was erased", predictions=count)

    def _erase_some(self, connection: Connection) -> int:
        """Erase the next batch. Returns its size: none when all is done, or another replica works.

        A hung process must not keep the job's row: `lock_timeout` ends its transaction.
        """
        cursor = self._lock(connection)
        if cursor is None:
            return 0
        oldest = select(predictions.c.id).where(
            predictions.c.id > cursor, predictions.c.id < id_at("pred", utc_now() - self._kept)
        )
        batch = oldest.order_by(predictions.c.id).limit(MAX_AT_ONCE)
        ids = connection.execute(batch).scalars().all()
        if ids:
            kept = predictions.c.id.in_(ids), predictions.c.erased_at.is_(None)
            connection.execute(
                update(predictions).where(*kept).values(**ERASED, erased_at=utc_now())
            )
            connection.execute(erasing(ids))
            connection.execute(update(jobs).where(jobs.c.name == JOB).values(cursor=ids[-1]))
        return len(ids)

    def _lock(self, connection: Connection) -> str | None:
        """The id up to which all is erased; None while another replica works."""
        connection.execute(select(self._database.lock_timeout()))
        row = select(jobs.c.cursor).where(jobs.c.name == JOB).with_for_update(skip_locked=True)
        return connection.execute(row).scalar_one_or_none()
