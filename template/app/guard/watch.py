"""What one process must learn from the database while it runs: stops, and newer policy files."""

import asyncio
from contextlib import suppress

from sqlalchemy import Connection, and_, insert, select, update

from app.db.engine import Database
from app.db.tables import policies, stops
from app.errors import DatabaseUnavailable
from app.guard.running import Running

# Within a second everything that runs at a stopped model has ended.
LOOK_SECONDS = 0.25


class Watch:
    """Ends what runs and was stopped; knows whether the policy of this process is the newest."""

    def __init__(self, database: Database, running: Running, version: str) -> None:
        self._database = database
        self._running = running
        self._version = version
        self._announced = False
        self._newest = ""
        ending = and_(stops.c.running, policies.c.id == 1)
        self._look = select(policies.c.version, stops.c.target, stops.c.kind).select_from(
            policies.outerjoin(stops, ending)
        )

    @property
    def is_current(self) -> bool:
        """Whether the newest policy is the one of this process."""
        return self._newest == self._version

    async def announce(self) -> None:
        """From now on this process's policy counts. Without a database, as soon as there is one."""

        def write(connection: Connection) -> None:
            own = {"version": self._version}
            if not connection.execute(update(policies).values(own)).rowcount:
                connection.execute(insert(policies).values(id=1, **own))

        with suppress(DatabaseUnavailable):
            await self._database.transact(write)
            self._announced, self._newest = True, self._version

    async def run(self) -> None:
        """Look, until the service ends."""
        while True:
            if not self._announced:
                await self.announce()
            with suppress(DatabaseUnavailable):
                await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises `DatabaseUnavailable`."""
        for row in await self._database.fetch(self._look):
            self._newest = row.version
            if row.target is not None:
                self._running.cut(row.target, row.kind)
