"""Settles attempts whose process died, and writes settlements that an outage delayed.

Every replica sweeps. It settles an attempt once its lease has run out. Work that still runs at a
provider is found by its id there and settled when it ends. Any other attempt is settled at its
maximum, as its cost is unknown. A prediction whose process died between two attempts has failed.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row, Select, bindparam, exists, func, select

from gateway import pricing
from gateway.accounts.principals import Membership, TeamRole
from gateway.background import repeat
from gateway.db.engine import Database
from gateway.db.tables import attempts, moment, predictions, teams, utc_now
from gateway.errors import DatabaseUnavailable, OutcomeUnknown
from gateway.json_text import encode
from gateway.ledger.batch import OPEN
from gateway.ledger.entries import (
    LEASE_MARGIN,
    FinishedPrediction,
    Settle,
    SettledAttempt,
    Values,
)
from gateway.ledger.ledger import Ledger
from gateway.policy import Cap, Model, Policy
from gateway.prices import Price
from gateway.providers.base import (
    Deadline,
    Outcome,
    Provider,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
    is_retryable,
)
from gateway.telemetry.logging import log

POLL_SECONDS = 1.0
MAX_AT_ONCE = 100
FIND_SECONDS = 5.0
# After this, work that the provider does not find is settled at its maximum.
LOST_AFTER = dt.timedelta(hours=1)
ENDED = ("settled", "released", "uncertain")
# The first sweep for predictions that died between attempts starts LOOK_BACK before earlier
# processes last served, as they swept until then. Later sweeps overlap the previous one.
LOOK_BACK, OVERLAP = dt.timedelta(minutes=10), dt.timedelta(seconds=10)
# That query reads all attempts of its period: it gets more time than others.
LOOK_PATIENCE_SECONDS = 10.0
# The largest value of the column: nearly 25 days.
MAX_MS = 2**31 - 1
TEAM_PLAN = (
    select(teams.c.plan)
    .where(teams.c.id == attempts.c.team_id)
    .scalar_subquery()
    .label("team_plan")
)
PROCESS_DIED = OutcomeUnknown("The process that asked ended before the answer came.")


class Sweeper:
    """Settles overdue attempts while the service runs."""

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
        self._swept: dt.datetime | None = None

    async def run(self) -> None:
        """Sweep every POLL_SECONDS until the service ends."""
        await repeat(self._poll, POLL_SECONDS)

    async def sweep(self) -> None:
        """Sweep once: settle overdue attempts, correct remote work that was settled at its maximum,
        and end predictions that died between two attempts.

        Raises `DatabaseUnavailable`.
        """
        # The time by the database's clock, which leases use.
        clock = select(self._database.microseconds().label("now"))
        now = moment((await self._database.fetch(clock))[0].now)
        if self._swept is None:
            (opened,) = await self._database.fetch(_LATEST)
            self._swept = max(filter(None, opened), default=now) - LOOK_BACK
        rows = await self._database.fetch(_OVERDUE, {"now": now})
        await _each(rows, self._settle)
        rows = await self._database.fetch(_UNCERTAIN, {"since": self._swept, "now": now})
        await _each(rows, self._correct)
        between = {"since": self._swept - OVERLAP, "now": now}
        rows = await self._database.fetch(_ABANDONED, between, seconds=LOOK_PATIENCE_SECONDS)
        await _each(rows, self._end)
        if len(rows) < MAX_AT_ONCE:
            self._swept = now

    async def _poll(self) -> None:
        await self._ledger.flush()
        await self.sweep()

    async def _settle(self, row: Row[Any]) -> None:
        provider, model = self._providers.get(row.provider), self._policy.models.get(row.model)
        if row.remote_id is None or provider is None or model is None:
            return await self._close(row, None, None)
        try:
            reply = await _find(provider, model, row.remote_id)
        except Exception as error:  # Also a crash in an adapter: the other attempts go on.
            log(logging.WARNING, "Work was not found at its provider", attempt=row.id, error=error)
            return await self._not_found(row, error)
        if reply is None:
            return await self._ledger.renew_lease(row.id, row.remote_id, LEASE_MARGIN)
        return await self._close(row, reply.usage, reply)

    async def _not_found(self, row: Row[Any], error: Exception) -> None:
        """The work failed at the provider, or cannot be fetched now."""
        usage = error.usage if isinstance(error, ProviderFailure) else None
        later = not isinstance(error, ProviderFailure) or is_retryable(error)
        if later and usage is None and utc_now() - row.opened_at < LOST_AFTER:
            return await self._ledger.renew_lease(row.id, row.remote_id, LEASE_MARGIN)
        return await self._close(row, usage, None)

    async def _correct(self, row: Row[Any]) -> None:
        """Correct remote work that was settled at its maximum, if its usage is known now."""
        provider, model = self._providers.get(row.provider), self._policy.models.get(row.model)
        if provider is None or model is None:
            return
        try:
            reply = await _find(provider, model, row.remote_id)
            usage = reply.usage if reply else None
        except (ProviderFailure, TimeoutError) as error:
            usage = error.usage if isinstance(error, ProviderFailure) else None
        if usage is not None:
            corrected = _settled(row, usage)
            await self._ledger.submit(Settle(self._caps(row), corrected, None, usage))

    async def _close(self, row: Row[Any], usage: Usage | None, reply: Reply | None) -> None:
        attempt = _settled(row, usage)
        ended = self._record(row, int(row.paid) + attempt["cost_nano_usd"], usage, reply)
        await self._ledger.submit(Settle(self._caps(row), attempt, ended, usage, overdue=True))

    async def _end(self, row: Row[Any]) -> None:
        ended = self._record(row, int(row.paid), None, None)
        await self._ledger.submit(Settle((), None, ended))

    def _record(self, row: Row[Any], cost: int, usage: Usage | None, reply: Reply | None) -> Values:
        """The end of an attempt's prediction. `cost` is that of all its attempts."""
        outcome, output, error = Outcome.CANCELLED, None, None
        if reply is None:
            error = to_json(PROCESS_DIED.body()["error"]).decode()
        else:
            outcome = Outcome.OK if reply.output else Outcome.EMPTY
            output = encode(reply.output).decode() if self._ledger.keeps_content else None
        took = utc_now() - row.opened_at
        finished = FinishedPrediction(
            id=row.prediction_id,
            served_model=row.model,
            provider=row.provider,
            status="failed" if reply is None else "succeeded",
            outcome=outcome.value,
            output=output,
            error=error,
            latency_ms=min(round(took.total_seconds() * 1000), MAX_MS),
            cost_nano_usd=cost,
        )
        return finished.values(usage)

    def _caps(self, row: Row[Any]) -> tuple[Cap, ...]:
        """The caps of an attempt, for the alerts; none if a plan was removed."""
        team = None
        if row.team_id is not None:
            team = Membership(row.team_id, row.team_plan, TeamRole.MEMBER)
        known = row.plan in self._policy.plans
        known = known and (team is None or team.plan in self._policy.team_plans)
        return self._policy.caps(row.user_id, row.plan, team) if known else ()


async def _find(provider: Provider, model: Model, remote_id: str) -> Reply | None:
    """The answer of remote work, None while it runs.

    Raises what `fetch_result` raises, and `TimeoutError`.
    """
    request = ProviderRequest(model, {}, Deadline(FIND_SECONDS), remote_id=remote_id)
    async with request.deadline.scope():
        return await provider.fetch_result(request)


def _settled(row: Row[Any], usage: Usage | None) -> Values:
    """An attempt at its cost, or at its maximum where its usage is not known."""
    cost = row.bound_nano_usd if usage is None else pricing.cost(Price.of(row.price), usage)
    settled = SettledAttempt(
        id=row.id,
        state="uncertain" if usage is None else "settled",
        cost_nano_usd=cost,
        remote_id=row.remote_id,
        provider_status=row.provider_status,
        reason=row.reason,
    )
    return settled._asdict()


async def _each(rows: Sequence[Row[Any]], work: Callable[[Row[Any]], Awaitable[None]]) -> None:
    """Do `work` for each attempt; log a failure and continue with the others."""
    ended = await asyncio.gather(*map(work, rows), return_exceptions=True)
    for row, error in zip(rows, ended, strict=True):
        if error is not None and not isinstance(error, DatabaseUnavailable):
            log(logging.ERROR, "An attempt could not be settled", attempt=row.id, error=error)


def _with_paid() -> Select[Any]:
    """Attempts, each with the cost of all attempts of its prediction so far."""
    every = attempts.alias()
    paid = select(func.coalesce(func.sum(every.c.cost_nano_usd), 0)).where(
        every.c.prediction_id == attempts.c.prediction_id
    )
    return select(attempts, TEAM_PLAN, paid.scalar_subquery().label("paid"))


def _abandoned() -> Select[Any]:
    """The last attempts of running predictions whose leases ended from `since` to `now`.

    The lease of an attempt covers the time of the attempts that may follow.
    """
    later = attempts.alias()
    no_other = ~exists().where(
        later.c.prediction_id == attempts.c.prediction_id, later.c.number > attempts.c.number
    )
    return (
        _with_paid()
        .join(predictions, predictions.c.id == attempts.c.prediction_id)
        .where(
            attempts.c.state.in_(ENDED),
            _ENDED_SINCE,
            predictions.c.status == "running",
            no_other,
        )
        .limit(MAX_AT_ONCE)
    )


_ENDED_SINCE = attempts.c.lease_until.between(bindparam("since"), bindparam("now"))
# Open attempts whose lease has run out at `now`.
_OVERDUE = (
    _with_paid()
    .where(attempts.c.state.in_(OPEN), attempts.c.lease_until <= bindparam("now"))
    .limit(MAX_AT_ONCE)
)
# Attempts of remote work that were settled at their maximum. Each is read once: by then, the
# provider knows its usage.
_UNCERTAIN = select(attempts, TEAM_PLAN).where(
    attempts.c.state == "uncertain", _ENDED_SINCE, attempts.c.remote_id.is_not(None)
)
_ABANDONED = _abandoned()
# When the attempts with the latest lease of each state were opened, read from an index.
_BY_LEASE = select(attempts.c.opened_at).order_by(attempts.c.lease_until.desc()).limit(1)
_LATEST = select(*(_BY_LEASE.where(attempts.c.state == each).scalar_subquery() for each in ENDED))
