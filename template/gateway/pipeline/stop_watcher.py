"""What one process must learn from the database while it runs: stops and starts."""

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

# Within a second everything that runs at a stopped model has ended.
POLL_SECONDS = 0.25
# Starts are looked for so far back: machines' clocks differ, and a process may stand still.
STARTS_FROM = dt.timedelta(minutes=5)


class StopWatcher:
    """Ends what runs and was stopped; closes the circuits of what was started."""

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
        # The starts of the last minutes that were obeyed; None before the first look.
        self._obeyed: set[str] | None = None
        self._starts = select(audit.c.id, audit.c.target).where(
            audit.c.id > bindparam("earliest"), audit.c.action == STARTED
        )
        self._ending = select(stops.c.target, stops.c.kind).where(stops.c.running)

    async def run(self) -> None:
        """Look, until the service ends."""
        await repeat(self.poll, POLL_SECONDS)

    async def poll(self) -> None:
        """Look once. Raises `DatabaseUnavailable`."""
        for row in await self._database.fetch(self._ending):
            self._in_flight.cut(row.target, row.kind)
        await self._obey_starts()

    async def _obey_starts(self) -> None:
        """Lift the cooldowns of what was started. A new process has none to lift."""
        earliest = id_at("aud", utc_now() - STARTS_FROM)
        rows = await self._database.fetch(self._starts, {"earliest": earliest})
        starts = {row.id: row.target for row in rows}
        if self._obeyed is not None:
            for start in starts.keys() - self._obeyed:
                try:
                    await self._breaker.reset(self._policy.models_of(starts[start]))
                except LimiterUnavailable:
                    del starts[start]  # It is tried again.
        self._obeyed = set(starts)
