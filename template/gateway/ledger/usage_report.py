"""Usage reports: the current periods from the accounts, lines from the predictions."""

import datetime as dt
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, func, select

from gateway.accounts.principals import Raise
from gateway.db.engine import Database
from gateway.db.tables import accounts, for_user, predictions, utc_now
from gateway.errors import InvalidRequest
from gateway.ids import earliest_id
from gateway.plans import Budgets
from gateway.policy import Cap, Policy
from gateway.schemas.usage import Period, UsageLine, UsageReport

GroupBy = Literal["user", "model", "outcome"]
COLUMNS = {
    "user": predictions.c.user_id,
    "model": predictions.c.model,
    "outcome": predictions.c.outcome,
}
SUMMED = (
    *("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens", "outputs"),
    "cost_nano_usd",
)
# Adding up a month of a busy service takes longer than other queries.
MAX_SECONDS = 20.0
NONE: Budgets = (0, 0)
"""What an unknown plan allows to spend."""
DAY = dt.timedelta(days=1)
# The days that ids can express.
EARLIEST, LATEST = dt.date(2000, 1, 1), dt.date(9000, 1, 1)


class Days(NamedTuple):
    """From `first` to `last`, both included; in UTC."""

    first: dt.date
    last: dt.date


class Report:
    """Makes usage reports. Its methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy

    async def of_service(self, days: Days, group_by: GroupBy) -> UsageReport:
        """The whole service's report."""
        cap = Cap("service", *self._policy.service.budgets)
        return await self._report(cap, days, group_by)

    async def of_user(
        self,
        user_id: str,
        plan: str,
        days: Days,
        group_by: GroupBy = "model",
        raised: Raise | None = None,
    ) -> UsageReport:
        """One user's report."""
        budgets = self._policy.plans[plan].budgets if plan in self._policy.plans else NONE
        cap = Cap(f"user:{user_id}", *budgets, raised)
        own = predictions.c.user_id == user_id
        return await self._report(cap, days, group_by, own, user_id=user_id)

    async def of_team(
        self, team_id: str, plan: str, days: Days, group_by: GroupBy = "user"
    ) -> UsageReport:
        """The report of what a team's members spent while they belonged to the team."""
        budgets = self._policy.team_plans[plan].budgets if plan in self._policy.team_plans else NONE
        cap = Cap(f"team:{team_id}", *budgets)
        return await self._report(cap, days, group_by, predictions.c.team_id == team_id)

    async def _report(
        self,
        cap: Cap,
        days: Days,
        group_by: GroupBy,
        *conditions: ColumnElement[bool],
        user_id: str | None = None,
    ) -> UsageReport:
        today = utc_now().date().isoformat()
        query = select(accounts).where(
            accounts.c.name == cap.account, accounts.c.period.in_([today, today[:7]])
        )
        rows = {row.period: row for row in await self._database.fetch(query)}
        lines = _lines(days, group_by, *conditions)
        lines = for_user(lines, user_id) if user_id else lines
        daily, monthly = cap.on(today)
        return UsageReport(
            day=_period(rows.get(today), daily),
            month=_period(rows.get(today[:7]), monthly),
            data=[
                UsageLine.model_validate(line, from_attributes=True)
                for line in await self._database.fetch(lines, seconds=MAX_SECONDS)
            ],
        )


def days_of(first: dt.date | None, last: dt.date | None) -> Days:
    """The days from `first`, by default the first of the month, to `last`, by default today.

    Raises `InvalidRequest` if `first` is after `last`.
    """
    last = last or utc_now().date()
    first = first or last.replace(day=1)
    if first > last:
        raise InvalidRequest("from: must not be after to, by default today.", param="from")
    return Days(first, last)


def _lines(days: Days, group_by: GroupBy, *conditions: ColumnElement[bool]) -> Select[Any]:
    """Requests, tokens and cost by day and `group_by`, newest day first."""
    columns, group = predictions.c, COLUMNS[group_by]
    return (
        select(
            columns.day.label("date"),
            group,
            func.count().label("requests"),
            *(func.sum(columns[name]).label(name) for name in SUMMED),
        )
        .where(_made_in(days), *conditions)
        .group_by(columns.day, group)
        .order_by(columns.day.desc(), group)
    )


def _made_in(days: Days) -> ColumnElement[bool]:
    """The predictions of these days, narrowed by id to a range of the index.

    The range is wider by a day, as the clocks that made the id and the day may differ.
    """
    first, last = max(days.first, EARLIEST), min(days.last, LATEST)
    made = predictions.c.id.between(
        earliest_id("pred", first - DAY), earliest_id("pred", last + 2 * DAY)
    )
    return made & predictions.c.day.between(days.first.isoformat(), days.last.isoformat())


def _period(row: Row[Any] | None, cap: int | None) -> Period:
    spent, reserved = (row.spent_nano_usd, row.reserved_nano_usd) if row else (0, 0)
    return Period(spent_nano_usd=spent, reserved_nano_usd=reserved, cap_nano_usd=cap)
