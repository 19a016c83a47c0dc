"""Alerts to the owner.

An alert is a row, written in the transaction that caused it. One replica logs and counts it. If
there is a webhook, the alert is posted until the webhook accepts it.
"""

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from gateway.alerts.webhook import MAX_SECONDS, Webhook
from gateway.background import repeat
from gateway.db.engine import Database
from gateway.db.tables import alerts, utc_now
from gateway.policy import Policy
from gateway.telemetry import metrics
from gateway.telemetry.logging import log

POLL_SECONDS = 0.5
MAX_AT_ONCE = 20
# A claimed alert belongs to its replica for so long; then it is posted again.
POST_LEASE = dt.timedelta(seconds=2 * MAX_SECONDS)
NOT_NOTIFIED = alerts.c.told_at.is_(None)
NOT_SENT = alerts.c.sent_at.is_(None)


class Alerts:
    """Logs, counts and posts alerts while the service runs."""

    def __init__(self, database: Database, policy: Policy, webhook: Webhook | None) -> None:
        self._database = database
        self._policy = policy
        self._webhook = webhook
        self._prices_seen: dt.date | None = None

    async def run(self) -> None:
        """Notify and post every POLL_SECONDS. A slow webhook does not delay the log."""
        await asyncio.gather(repeat(self.notify, POLL_SECONDS), repeat(self.post, POLL_SECONDS))

    async def notify(self) -> None:
        """Log and count the new alerts. Raises `DatabaseUnavailable`."""
        await self._check_prices()
        if await self._database.fetch(select(alerts.c.id).where(NOT_NOTIFIED).limit(1)):
            await self._database.transact(self._notify)

    async def post(self) -> None:
        """Post the alerts that the webhook has not accepted. Raises `DatabaseUnavailable`."""
        if self._webhook is None:
            return
        if await self._database.fetch(select(alerts.c.id).where(_due()).limit(1)):
            claimed = await self._database.transact(_claim)
            await asyncio.gather(*(self._post(self._webhook, row) for row in claimed))

    def _notify(self, connection: Connection) -> None:
        now = utc_now()
        times = {"told_at": now} if self._webhook else {"told_at": now, "sent_at": now}
        for row in connection.execute(
            update(alerts).where(NOT_NOTIFIED).values(**times).returning(alerts)
        ):
            # Before the commit: if it fails, the alert is logged twice instead of never.
            log(logging.WARNING, "Alert", alert=row.id, kind=row.kind, **row.details)
            metrics.alerts.labels(row.kind).inc()

    async def _post(self, webhook: Webhook, row: Row[Any]) -> None:
        problem = await webhook.post(row.id, row.kind, row.at, row.details)
        if problem:
            log(logging.WARNING, "The webhook did not take an alert", alert=row.id, problem=problem)
            return
        sent = update(alerts).where(alerts.c.id == row.id).values(sent_at=utc_now())
        await self._database.transact(lambda connection: connection.execute(sent))

    async def _check_prices(self) -> None:
        """Once a day, raise alerts for models whose prices were checked long ago."""
        today = utc_now().date()
        if self._prices_seen == today:
            return
        for model in self._policy.models.values():
            if model.prices_are_old:
                checked = model.prices_checked.isoformat()
                details = {"model": model.id, "prices_checked": checked}
                await raise_alert(self._database, f"prices:{model.id}:{checked}", "prices", details)
        self._prices_seen = today


async def raise_alert(
    database: Database, alert_id: str, kind: str, details: dict[str, Any]
) -> None:
    """Insert an alert, unless its id is there. Raises `DatabaseUnavailable`."""

    def write(connection: Connection) -> None:
        if not connection.execute(select(alerts.c.id).where(alerts.c.id == alert_id)).first():
            row = {"id": alert_id, "kind": kind, "details": details, "at": utc_now()}
            connection.execute(insert(alerts), row)

    with suppress(IntegrityError):  # Another process inserts it at the same moment.
        await database.transact(write)


def _due() -> Any:
    next_try = alerts.c.next_try_at
    return NOT_SENT & or_(next_try.is_(None), next_try <= utc_now())


def _claim(connection: Connection) -> Sequence[Row[Any]]:
    """Claim the due alerts, except those that another replica claims at this moment."""
    due = select(alerts.c.id).where(_due()).order_by(alerts.c.at).limit(MAX_AT_ONCE)
    ids = connection.execute(due.with_for_update(skip_locked=True)).scalars().all()
    claim = update(alerts).where(alerts.c.id.in_(ids)).values(next_try_at=utc_now() + POST_LEASE)
    return connection.execute(claim.returning(alerts)).all()
