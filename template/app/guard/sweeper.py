"""Settles what nobody else will: attempts whose process died, and what could not be written.

Any replica does it. An attempt is left alone until its lease has run out. Work that outlived its
process at a provider is found again by its id there and adopted; everything else is paid at its
bound, as nobody knows what it cost.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row, func, select

from app.db.engine import Database
from app.db.tables import attempts, utc_now
from app.errors import DatabaseUnavailable, OutcomeUnknown
from app.guard import pricing
from app.guard.decisions import OPEN
from app.guard.entries import LEASE_MARGIN, Closing
from app.guard.ledger import Ledger
from app.guard.retry import may_pass
from app.policy import Cap, Policy, Price
from app.providers.base import Deadline, Job, Outcome, Provider, ProviderFailure, Reply, Usage
from app.telemetry.logging import log

LOOK_SECONDS = 1.0
MOST_AT_ONCE = 100
FIND_SECONDS = 5.0
# Work that is not found for so long is given up.
LOST_AFTER = dt.timedelta(hours=1)
BROKE_OFF = OutcomeUnknown("The process that asked ended before the answer came.")


class Sweeper:
    """Looks for overdue attempts for as long as the service runs."""

    def __init__(
        self,
        database: Database,
        ledger: Ledger,
        policy: Policy,
        providers: Mapping[str, Provider],
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._policy = policy
        self._providers = providers

    async def run(self) -> None:
        """While the database does not answer, nothing can be settled."""
        while True:
            with suppress(DatabaseUnavailable):
                await self._ledger.pay()
                await self.sweep()
            await asyncio.sleep(LOOK_SECONDS)

    async def sweep(self) -> None:
        """Settle or adopt what is overdue now."""
        before = attempts.alias()
        paid = select(func.coalesce(func.sum(before.c.cost_nano_usd), 0)).where(
            before.c.prediction_id == attempts.c.prediction_id
        )
        overdue = attempts.c.state.in_(OPEN), attempts.c.lease_until <= utc_now()
        query = select(attempts, paid.scalar_subquery().label("paid")).where(*overdue)
        rows = await self._database.fetch(query.limit(MOST_AT_ONCE))
        await asyncio.gather(*map(self._settle, rows))

    async def _settle(self, row: Row[Any]) -> None:
        provider, model = self._providers.get(row.provider), self._policy.models.get(row.model)
        if row.remote_id is None or provider is None or model is None:
            return await self._close(row, None, None)
        job = Job(model, {}, Deadline(FIND_SECONDS), sent=True, remote_id=row.remote_id)
        try:
            async with job.deadline.scope():
                reply = await provider.find(job)
        except Exception as error:  # A crash in an adapter must not keep the rest open.
            log(logging.WARNING, "Work was not found at its provider", attempt=row.id, error=error)
            return await self._not_found(row, error)
        if reply is None:
            return await self._ledger.renew(row.id, row.remote_id, LEASE_MARGIN)
        return await self._close(row, reply.usage, reply)

    async def _not_found(self, row: Row[Any], error: Exception) -> None:
        """It failed there, or could not be looked for now."""
        usage = error.usage if isinstance(error, ProviderFailure) else None
        later = not isinstance(error, ProviderFailure) or may_pass(error)
        if later and usage is None and utc_now() - row.opened_at < LOST_AFTER:
            return await self._ledger.renew(row.id, row.remote_id, LEASE_MARGIN)
        return await self._close(row, usage, None)

    async def _close(self, row: Row[Any], usage: Usage | None, reply: Reply | None) -> None:
        cost = row.bound_nano_usd if usage is None else pricing.cost(Price(**row.price), usage)
        attempt = {
            "id": row.id,
            "state": "uncertain" if usage is None else "settled",
            "cost_nano_usd": cost,
            "remote_id": row.remote_id,
        }
        ended = {
            "id": row.prediction_id,
            "served_model": row.model,
            "provider": row.provider,
            "latency_ms": round((utc_now() - row.opened_at).total_seconds() * 1000),
            "cost_nano_usd": int(row.paid) + cost,
            **(usage or Usage())._asdict(),
            **self._came_of(reply),
        }
        caps = self._caps(row)
        await self._ledger.settle(Closing(caps, attempt, ended, overdue=True))

    def _came_of(self, reply: Reply | None) -> dict[str, Any]:
        if reply is None:
            error = to_json(BROKE_OFF.body()["error"]).decode()
            failed = {"status": "failed", "outcome": Outcome.CANCELLED.value}
            return {**failed, "output": None, "error": error}
        outcome = Outcome.OK if reply.output else Outcome.EMPTY
        output = to_json(reply.output).decode() if self._ledger.keeps_content else None
        return {"status": "succeeded", "outcome": outcome.value, "output": output, "error": None}

    def _caps(self, row: Row[Any]) -> Sequence[Cap]:
        """What it counts against, for the alerts; plans may be gone."""
        known = row.plan in self._policy.plans
        return self._policy.caps(row.user_id, row.plan) if known else ()
