"""What one process must learn from the database while it runs: stops, starts, newer policies."""

import datetime as dt
import math
import time
from contextlib import suppress

from sqlalchemy import Connection, and_, bindparam, insert, select, update

from gateway.accounts.audit import STARTED
from gateway.background import repeat
from gateway.circuit_breaker.breaker import Cooldown
from gateway.db.engine import Database
from gateway.db.tables import audit, policies, stops, utc_now
from gateway.errors import DatabaseUnavailable, LimiterUnavailable
from gateway.ids import id_at
from gateway.pipeline.in_flight import Running
from gateway.policy import Policy
from gateway.rate_limits.base import Limiter

# Within a second everything that runs at a stopped model has ended.
LOOK_SECONDS = 0.25
# A policy that no process serves any more counts no more. The limiter may have come back empty,
# so that it is looked for until every process has renewed what it knows.
SERVED_SECONDS, RENEWAL_SECONDS, MISSED_SECONDS = 12.0, 4.0, 5.0
# Starts are looked for so far back: machines' clocks differ, and a process may stand still.
STARTS_FROM = dt.timedelta(minutes=5)


class Watch:
    """Ends what runs and was stopped; closes the circuits of what was started; knows whether the
    policy of this process is the newest.
    """

    def __init__(
        self,
        database: Database,
        limiter: Limiter,
        running: Running,
        cooldown: Cooldown,
        policy: Policy,
    ) -> None:
        self._database = database
        self._limiter = limiter
        self._running = running
        self._cooldown = cooldown
        self._policy = policy
        self._version = policy.version
        # The starts of the last minutes that were obeyed; None before the first look.
        self._obeyed: set[str] | None = None
        self._starts = select(audit.c.id, audit.c.target).where(
            audit.c.id > bindparam("earliest"), audit.c.action == STARTED
        )
        self._announced = False
        self._newest = ""
        self._renewed_at, self._missed_at = -math.inf, math.inf
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

        # In this order: who looks must not find it unserved.
        await self._serve()
        with suppress(DatabaseUnavailable):
            await self._database.transact(write)
            self._announced, self._newest = True, self._version

    async def run(self) -> None:
        """Look, until the service ends."""
        await repeat(self.look, LOOK_SECONDS)

    async def look(self) -> None:
        """Look once. Raises `DatabaseUnavailable`."""
        if not self._announced:
            await self.announce()
        for row in await self._database.fetch(self._look):
            self._newest = row.version
            if row.target is not None:
                self._running.cut(row.target, row.kind)
        await self._obey_starts()
        if self.is_current:
            await self._serve()
        elif await self._is_unserved():
            await self.announce()

    async def _obey_starts(self) -> None:
        """Lift the cooldowns of what was started. A new process has none to lift."""
        earliest = id_at("aud", utc_now() - STARTS_FROM)
        rows = await self._database.fetch(self._starts, {"earliest": earliest})
        starts = {row.id: row.target for row in rows}
        if self._obeyed is not None:
            for start in starts.keys() - self._obeyed:
                try:
                    await self._cooldown.lift(self._policy.models_of(starts[start]))
                except LimiterUnavailable:
                    del starts[start]  # It is tried again.
        self._obeyed = set(starts)

    async def _serve(self) -> None:
        """Let all processes know that this policy is served."""
        if time.monotonic() < self._renewed_at + RENEWAL_SECONDS:
            return
        with suppress(LimiterUnavailable):
            await self._limiter.remember(_served(self._version), "served", SERVED_SECONDS)
            self._renewed_at = time.monotonic()

    async def _is_unserved(self) -> bool:
        """Whether the newest policy's last process is gone, so that this one's counts again."""
        now = time.monotonic()
        with suppress(LimiterUnavailable):
            if await self._limiter.recall([_served(self._newest)]) == [None]:
                self._missed_at = min(self._missed_at, now)
                return now >= self._missed_at + MISSED_SECONDS
        self._missed_at = math.inf
        return False


def _served(version: str) -> str:
    return f"policy:{version}"
