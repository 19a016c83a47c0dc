"""`python -m app users …`."""

import datetime as dt
from decimal import Decimal
from typing import Annotated, Any

import typer
from sqlalchemy import Row

from app import wiring
from app.cli.base import Email, Json, Session, command, show, show_list
from app.cli.user_data import delete, export
from app.schemas.admin import User
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Raise, Role
from gateway.accounts.sessions import Sessions
from gateway.accounts.users import UserSearch
from gateway.counts import counted
from gateway.errors import InvalidRequest
from gateway.prices import MAX_USD, NANO

app = typer.Typer(name="users", help="Users, their roles and plans.", no_args_is_help=True)
command(app)(export)
command(app)(delete)

Plan = Annotated[str, typer.Option(help="A plan of plans.toml.")]
As = Annotated[Role, typer.Option(help="What the user may do.")]


@command(app)
async def create(
    session: Session,
    email: Email,
    role: As = Role.USER,
    plan: Plan = "free",
    as_json: Json = False,
) -> None:
    """Make a user and show a credential, this once."""
    session.policy.require_plan(plan)
    actor = command_line()
    user = await session.users.create(email, role, plan, actor)
    secret = await wiring.auth.create_credential(session.settings, session.database, user.id, actor)
    credential = secret or wiring.auth.NO_CREDENTIALS
    shown = {name: getattr(user, name) for name in ("id", "email", "role", "plan")}
    show({**shown, "credential": secret}, as_json, f"{user.email}: {credential}")


@command(app, "list")
async def list_users(
    session: Session,
    email: Annotated[str | None, typer.Option(help="A part of the address.")] = None,
    role: Annotated[Role | None, typer.Option(help="Only users with this role.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only users with this plan.")] = None,
    disabled: Annotated[
        bool | None, typer.Option("--disabled/--enabled", help="Only users who are so.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show all users, or those who match."""
    rows = await session.users.list(UserSearch(email, role, plan, disabled))
    empty = "There are no users; make one with: python -m app users create"
    show_list([User.model_validate(row) for row in rows], as_json, _line, empty)


@command(app)
async def set_role(session: Session, email: Email, role: As, as_json: Json = False) -> None:
    """Change what a user may do."""
    await _change(session, email, as_json, role=role)


@command(app)
async def set_plan(session: Session, email: Email, plan: Plan, as_json: Json = False) -> None:
    """Change what a user may use."""
    session.policy.require_plan(plan)
    await _change(session, email, as_json, plan=plan)


@command(app)
async def disable(session: Session, email: Email, as_json: Json = False) -> None:
    """End all access of a user; records stay."""
    await _change(session, email, as_json, disabled=True)


@command(app)
async def enable(session: Session, email: Email, as_json: Json = False) -> None:
    """Give a disabled user access again."""
    await _change(session, email, as_json, disabled=False)


@command(app)
async def end_sessions(session: Session, email: Email, as_json: Json = False) -> None:
    """Sign a user out of every browser."""
    user = await session.users.find(email)
    count = await Sessions(session.database).end_all(user.id, command_line())
    show({"ended": count}, as_json, f"{user.email}: {counted(count, 'session')} ended.")


@command(app)
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
    found = await session.users.find(email)
    row = await session.users.raise_budget(found.id, raised, command_line())
    said = f"raised until {raised.until}" if raised else "as the plan says"
    show(User.model_validate(row), as_json, f"{row.email}: {said}.")


async def _change(session: Session, email: str, as_json: bool, **values: Any) -> None:
    found = await session.users.find(email)
    changed = await session.users.change(found.id, command_line(), **values)
    (name,) = values
    was, now = _state(found, name), _state(changed, name)
    said = f"{now} already" if was == now else f"{now}, was {was}"
    show(User.model_validate(changed), as_json, f"{changed.email}: {said}.")


def _state(user: Row[Any], name: str) -> str:
    """The words for a user's role or plan, or for whether the user is disabled."""
    if name == "disabled":
        return "enabled" if user.disabled_at is None else "disabled"
    return f"{name} {getattr(user, name)}"


def _line(user: User) -> str:
    disabled = "  disabled" if user.disabled_at else ""
    return f"{user.id}  {user.email}  {user.role}  {user.plan}{disabled}"


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
