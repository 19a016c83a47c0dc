"""Watches the database for stops and starts of the operator, in each process."""

import datetime as dt

from sqlalchemy import bindparam, select

from gateway.accounts.audit import STARTED
from gateway.background import repeat
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.db.engine import Database
from gateway.db.tables import audit, stops, utc_now
from gateway.errors import LimiterUnavailable
from gateway.ids import id_at
from gateway.pipeline.in_flight import InFlight
from gateway.policy import Policy

# All calls of a stopped model end within a second.
POLL_SECONDS = 0.25
# Starts are read from so far back: machines' clocks differ, and a process may stand still.
STARTS_FROM = dt.timedelta(minutes=5)


class StopWatcher:
    """Cancels generations that were stopped; closes the circuits of what was started."""

    def __init__(
        self,
        database: Database,
        in_flight: InFlight,
        circuit_breaker: CircuitBreaker,
        policy: Policy,
    ) -> None:
        self._database = database
        self._in_flight = in_flight
        self._breaker = circuit_breaker
        self._policy = policy
        # The ids of recent starts that were applied; None before the first poll.
        self._applied: set[str] | None = None
        self._starts = select(audit.c.id, audit.c.target).where(
            audit.c.id > bindparam("earliest"), audit.c.action == STARTED
        )
        self._ending = select(stops.c.target, stops.c.kind).where(stops.c.running)

    async def run(self) -> None:
        """Poll until the service ends."""
        await repeat(self.poll, POLL_SECONDS)

    async def poll(self) -> None:
        """Poll once. Raises `DatabaseUnavailable`."""
        for row in await self._database.fetch(self._ending):
            self._in_flight.cancel(row.target, row.kind)
        await self._apply_starts()

    async def _apply_starts(self) -> None:
        """Close the circuits of what was started. A new process has none that are open."""
        earliest = id_at("aud", utc_now() - STARTS_FROM)
        rows = await self._database.fetch(self._starts, {"earliest": earliest})
        starts = {row.id: row.target for row in rows}
        if self._applied is not None:
            for start in starts.keys() - self._applied:
                try:
                    await self._breaker.reset(self._policy.models_of(starts[start]))
                except LimiterUnavailable:
                    del starts[start]  # The next poll tries again.
        self._applied = set(starts)
