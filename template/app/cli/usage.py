"""`python -m app usage`."""

import datetime as dt
from collections.abc import Mapping
from typing import Annotated

import typer
from sqlalchemy import select

from app.cli.base import Json, Session, show
from gateway.accounts.lookup import raise_of
from gateway.counts import counted
from gateway.db.tables import users
from gateway.ledger.budget import usd
from gateway.ledger.usage_report import Days, GroupBy, Report, days_of
from gateway.schemas.usage import Period, UsageLine, UsageReport


async def usage(
    session: Session,
    user: Annotated[str, typer.Option(help="The e-mail address of one user.")] = "",
    team: Annotated[str, typer.Option(help="One team, as `teams list` shows it.")] = "",
    first: Annotated[
        dt.datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day.")
    ] = None,
    last: Annotated[
        dt.datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day.")
    ] = None,
    group_by: Annotated[GroupBy, typer.Option(help="What each line is for.")] = "model",
    as_json: Json = False,
) -> None:
    """Show what was spent and is reserved of the caps, by day; this month's by default."""
    if user and team:
        raise typer.BadParameter("give --user or --team.")
    days = days_of(first and first.date(), last and last.date())
    found = await _report(session, user, team, days, group_by)
    emails = {} if as_json else await _emails(session, found)
    show(found.model_dump(mode="json", exclude_unset=True), as_json, _text(found, emails))


async def _report(
    session: Session, user: str, team: str, days: Days, group_by: GroupBy
) -> UsageReport:
    """The report of a user, by e-mail address, of a team, by id, or of the whole service."""
    report = Report(session.database, session.policy)
    if user:
        row = await session.users.find(user)
        return await report.of_user(row.id, row.plan, days, group_by, raise_of(row))
    if team:
        row = await session.teams.get(team)
        return await report.of_team(row.id, row.plan, days, group_by)
    return await report.of_service(days, group_by)


async def _emails(session: Session, report: UsageReport) -> Mapping[str, str]:
    """The addresses of the users in a report, by their ids."""
    ids = {line.user_id for line in report.data if line.user_id}
    query = select(users.c.id, users.c.email).where(users.c.id.in_(ids))
    return {row.id: row.email for row in await session.database.fetch(query)}


def _text(report: UsageReport, emails: Mapping[str, str]) -> str:
    lines = [_spent("Today", report.day), _spent("This month", report.month)]
    for line in report.data:
        user = line.user_id and emails.get(line.user_id, line.user_id)
        of = user or line.model or line.outcome or "running"
        cost = usd(line.cost_nano_usd)
        requests = counted(line.requests, "request")
        lines.append(f"{line.date}  {of}  {requests}  {_used(line)}  {cost}")
    return "\n".join(lines)


def _used(line: UsageLine) -> str:
    """What it used; of the parts of the input and of outputs only what there is."""
    parts = {"cached": line.cached_input_tokens, "written": line.cache_write_tokens}
    shown = ", ".join(f"{count} {name}" for name, count in parts.items() if count)
    tokens = f"{line.input_tokens}{f' ({shown})' if shown else ''} + "
    tokens += counted(line.output_tokens, "token")
    return f"{tokens}  {counted(line.outputs, 'output')}" if line.outputs else tokens


def _spent(name: str, period: Period) -> str:
    cap = "there is no cap"
    if period.cap_nano_usd is not None:
        cap = f"the cap is {usd(period.cap_nano_usd)}"
    spent, reserved = usd(period.spent_nano_usd), usd(period.reserved_nano_usd)
    return f"{name}: spent {spent}, reserved {reserved}; {cap}"
