"""The command line: `python -m app …`."""

import asyncio
import signal
import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from sqlalchemy import Row

from app import wiring
from app.cli.ask import ask
from app.cli.base import Json, Session, command, fail, in_session, show
from app.cli.doctor import examine
from app.cli.models import app as models
from app.cli.predictions import app as predictions
from app.cli.serve import become
from app.cli.stop import alert_key, start, stop
from app.cli.teams import app as teams
from app.cli.usage import usage
from app.cli.user_access import end_sessions, raise_budget
from app.cli.user_data import delete, export
from app.schemas.admin import User
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.users import Users, UserSearch
from gateway.db.migrate import upgrade
from gateway.errors import InvalidRequest
from gateway.policy import load as load_policy

app = typer.Typer(
    help="The AI service.",
    no_args_is_help=True,
    add_completion=False,
    # Boxes cut the long names of options at 80 columns.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
users = typer.Typer(help="Users, their roles and plans.", no_args_is_help=True)
app.add_typer(users, name="users")
app.add_typer(teams, name="teams")
app.add_typer(models, name="models")
app.add_typer(predictions, name="predictions")
for module in wiring.COMMANDS:
    app.add_typer(import_module(module).app)
for work in (ask, stop, start, usage, alert_key):
    command(app)(work)
command(users)(end_sessions)
command(users)(raise_budget)
command(users)(export)
command(users)(delete)

Email = Annotated[str, typer.Option(help="The user's e-mail address.")]
Plan = Annotated[str, typer.Option(help="A plan of plans.toml.")]
As = Annotated[Role, typer.Option(help="What the user may do.")]


@command(app)
async def migrate(session: Session, as_json: Json = False) -> None:
    """Bring the tables up to date."""
    applied = await upgrade(session.database)
    text = f"Applied {', '.join(applied)}." if applied else "The tables are up to date already."
    show(applied, as_json, text)


@app.command()
def serve(
    migrate_first: Annotated[
        bool, typer.Option("--migrate", help="Bring the tables up to date first.")
    ] = False,
) -> None:
    """Serve on PORT until a signal stops it."""
    # A host's request to stop is no failure, also before it serves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if migrate_first:
        asyncio.run(in_session(migrate, {}))
    become()


@app.command()
def doctor(
    production: Annotated[
        bool, typer.Option("--production", help="As strictly as production needs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check environment, policy files, provider keys, database, migrations and limiter.

    Warns of what is stopped, and of users with a plan that plans.toml lacks. In production also:
    separate keys, replicas, budget, and whether a commit outlives a power loss.
    """
    findings = examine(production=production)
    lines = [f"{f.mark} {f.check}{': ' * bool(f.advice)}{f.advice}" for f in findings]
    show([finding._asdict() for finding in findings], as_json, "\n".join(lines))
    if any(finding.verdict == "problem" for finding in findings):
        fail("There is something to do before this service can run.")


@command(users, "create")
async def create_user(
    session: Session,
    email: Email,
    role: As = Role.USER,
    plan: Plan = "free",
    as_json: Json = False,
) -> None:
    """Make a user and show a credential, this once."""
    _check_plan(session, plan)
    actor = command_line()
    user = await Users(session.database).create(email, role, plan, actor)
    secret = await wiring.auth.create_credential(session.settings, session.database, user.id, actor)
    told = secret or wiring.auth.NO_CREDENTIALS
    shown = {name: getattr(user, name) for name in ("id", "email", "role", "plan")}
    show({**shown, "credential": secret}, as_json, f"{user.email}: {told}")


@command(users, "list")
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
    search = UserSearch(email, role, plan, disabled)
    rows = [User.model_validate(row) for row in await Users(session.database).list(search)]
    lines = [
        f"{user.id}  {user.email}  {user.role}  {user.plan}{'  disabled' * bool(user.disabled_at)}"
        for user in rows
    ]
    text = "\n".join(lines) or "There are no users; make one with: python -m app users create"
    show([user.model_dump(mode="json") for user in rows], as_json, text)


@command(users)
async def set_role(session: Session, email: Email, role: As, as_json: Json = False) -> None:
    """Change what a user may do."""
    await _change(session, email, as_json, role=role)


@command(users)
async def set_plan(session: Session, email: Email, plan: Plan, as_json: Json = False) -> None:
    """Change what a user may use."""
    _check_plan(session, plan)
    await _change(session, email, as_json, plan=plan)


@command(users)
async def disable(session: Session, email: Email, as_json: Json = False) -> None:
    """End all access of a user; records stay."""
    await _change(session, email, as_json, disabled=True)


@command(users)
async def enable(session: Session, email: Email, as_json: Json = False) -> None:
    """Give a disabled user access again."""
    await _change(session, email, as_json, disabled=False)


async def _change(session: Session, email: str, as_json: bool, **values: Any) -> None:
    table = Users(session.database)
    found = await table.find(email)
    changed = await table.change(found.id, command_line(), **values)
    (name,) = values
    was, now = _state(found, name), _state(changed, name)
    said = f"{now} already" if was == now else f"{now}, was {was}"
    user = User.model_validate(changed).model_dump(mode="json")
    show(user, as_json, f"{changed.email}: {said}.")


def _state(user: Row[Any], name: str) -> str:
    """What a user has under a name, for a person."""
    if name == "disabled":
        return "enabled" if user.disabled_at is None else "disabled"
    return f"{name} {getattr(user, name)}"


def _check_plan(session: Session, plan: str) -> None:
    plans = load_policy(session.settings.policy_dir).plans
    if plan not in plans:
        raise InvalidRequest(f"There is no plan {plan!r} in plans.toml; it has {', '.join(plans)}.")
