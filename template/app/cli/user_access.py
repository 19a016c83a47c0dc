"""`python -m app users raise-budget` and `users end-sessions`."""

import datetime as dt
from decimal import Decimal
from typing import Annotated

import typer

from app.cli.base import Json, Session, show
from app.schemas.admin import User
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Raise
from gateway.accounts.sessions import Sessions
from gateway.accounts.users import Users
from gateway.counts import counted
from gateway.errors import InvalidRequest
from gateway.prices import MAX_USD, NANO

Email = Annotated[str, typer.Option(help="The user's e-mail address.")]


def _nano(given: str | None) -> int | None:
    """Nano-dollars of an amount in dollars."""
    if given is None:
        return None
    try:
        amount = Decimal(given) * NANO
    except ArithmeticError as error:
        raise typer.BadParameter("must be an amount of dollars such as 12.50.") from error
    if not 0 <= amount <= MAX_USD * NANO or amount != int(amount):
        raise typer.BadParameter("must be an amount of dollars such as 12.50.")
    return int(amount)


async def raise_budget(
    session: Session,
    email: Email,
    daily_usd: Annotated[str | None, typer.Option(help="Instead of the plan's, if higher.")] = None,
    monthly_usd: Annotated[str | None, typer.Option(help="As for the day.")] = None,
    until: Annotated[
        dt.datetime | None, typer.Option(formats=["%Y-%m-%d"], help="The last day (UTC).")
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End the raise now.")] = False,
    as_json: Json = False,
) -> None:
    """Raise a user's own budgets until a day, on every replica, without a restart.

    The budgets of the plan, the team and the service stay.
    """
    daily, monthly = _nano(daily_usd), _nano(monthly_usd)
    if end == (until is not None) or (until is None) != (daily is None and monthly is None):
        raise InvalidRequest("Give --until with --daily-usd or --monthly-usd, or --end alone.")
    raised = Raise(daily, monthly, until.date().isoformat()) if until else None
    people = Users(session.database)
    found = await people.find(email)
    row = await people.raise_budget(found.id, raised, command_line())
    said = f"raised until {raised.until}" if raised else "as the plan says"
    show(User.model_validate(row).model_dump(mode="json"), as_json, f"{row.email}: {said}.")


async def end_sessions(session: Session, email: Email, as_json: Json = False) -> None:
    """Sign a user out of every browser."""
    user = await Users(session.database).find(email)
    count = await Sessions(session.database).end_all(user.id, command_line())
    show({"ended": count}, as_json, f"{user.email}: {counted(count, 'session')} ended.")
