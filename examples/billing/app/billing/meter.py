"""Reports the ledger's costs to Stripe's meter: one event for each customer and past day."""

import datetime as dt
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, insert, literal, select

from app.billing.stripe import Stripe
from app.billing.tables import billing_customers, billing_reports
from gateway.db.engine import Database
from gateway.db.tables import accounts, utc_now

# Stripe takes events of the last 35 days.
DAYS = 34
AT_ONCE = 100
NANO_PER_MICRO = 1000


async def report_usage(database: Database, stripe: Stripe, meter: str) -> int:
    """Report the days that Stripe does not have yet, in micro-dollars; returns how many.

    A day is reported once it is over and no call of it runs. If this ends between Stripe's answer
    and the note of it, the next run sends the same identifier, which Stripe counts once.
    Raises `ProviderError` and `DatabaseUnavailable`.
    """
    count = 0
    while rows := await database.fetch(_due(utc_now().date())):
        for row in rows:
            await _report(stripe, meter, row)
            await database.transact(partial(_note, row=row))
        count += len(rows)
    return count


def _note(connection: Connection, row: Row[Any]) -> None:
    """Note that Stripe has a day."""
    done = {"user_id": row.user_id, "day": row.period, "reported_at": utc_now()}
    connection.execute(insert(billing_reports), done)


async def _report(stripe: Stripe, meter: str, row: Row[Any]) -> None:
    day = dt.date.fromisoformat(row.period)
    noon = dt.datetime.combine(day, dt.time(12), dt.UTC)
    value = row.spent_nano_usd // NANO_PER_MICRO
    identifier = f"{row.user_id}-{row.period}"
    await stripe.report(meter, row.customer_id, value, int(noon.timestamp()), identifier)


def _due(today: dt.date) -> Select[Any]:
    """The costs of customers on past days that are not yet reported."""
    first, last = (today - dt.timedelta(days=DAYS)).isoformat(), today.isoformat()
    is_theirs = accounts.c.name == literal("user:") + billing_customers.c.user_id
    is_reported = and_(
        billing_reports.c.user_id == billing_customers.c.user_id,
        billing_reports.c.day == accounts.c.period,
    )
    return (
        select(billing_customers.c.user_id, billing_customers.c.customer_id, accounts)
        .join(accounts, is_theirs)
        .outerjoin(billing_reports, is_reported)
        .where(
            accounts.c.period >= first,
            accounts.c.period < last,
            # Months have periods too, which are shorter.
            accounts.c.period.like("____-__-__"),
            accounts.c.reserved_nano_usd == 0,
            accounts.c.spent_nano_usd > 0,
            billing_reports.c.user_id.is_(None),
        )
        .order_by(accounts.c.period)
        .limit(AT_ONCE)
    )
