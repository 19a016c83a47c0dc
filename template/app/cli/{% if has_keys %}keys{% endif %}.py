"""`python -m app keys …`."""

import datetime as dt
from typing import Annotated

import typer

from app.cli.base import Json, Session, checked_name, command, show, show_list
from app.schemas.keys import MAX, MAX_NANO_USD, ApiKey, CreatedKey
from gateway.accounts.api_keys import Keys, api_keys, owned
from gateway.accounts.audit import command_line
from gateway.accounts.principals import KeyLimits, Scope
from gateway.counts import counted
from gateway.db.tables import utc_now
from gateway.errors import Conflict, InvalidRequest

app = typer.Typer(name="keys", help="API keys of users.", no_args_is_help=True)
Rate = Annotated[int | None, typer.Option(min=1, max=MAX, help="Of this key alone.")]
Budget = Annotated[int | None, typer.Option(min=0, max=MAX_NANO_USD, help="Of this key alone.")]
Email = Annotated[str, typer.Option(help="Whose key it is.")]
Expiry = Annotated[
    dt.datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"], help="When it ends, in UTC."),
]


@command(app)
async def create(
    session: Session,
    email: Email,
    name: Annotated[str, typer.Option(help="What it is for.", callback=checked_name)] = "key",
    scope: Annotated[list[Scope] | None, typer.Option(help="May be given several times.")] = None,
    expires_at: Expiry = None,
    requests_per_minute: Rate = None,
    tokens_per_minute: Rate = None,
    concurrent_generations: Rate = None,
    daily_budget_nano_usd: Budget = None,
    monthly_budget_nano_usd: Budget = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once."""
    user = await session.users.find(email)
    if user.disabled_at is not None:
        raise Conflict(
            f"{user.email} is disabled, and no key would work; users enable comes first."
        )
    scopes = scope or [Scope.GENERATE, Scope.READ]
    limits = KeyLimits(
        requests_per_minute,
        tokens_per_minute,
        concurrent_generations,
        daily_budget_nano_usd,
        monthly_budget_nano_usd,
    )
    secret, row = await _keys(session).create(
        user.id, name, scopes, command_line(), _in_future(expires_at), limits
    )
    key = CreatedKey.model_validate(row).model_copy(update={"secret": secret})
    show(key, as_json, secret)


@command(app, "list")
async def list_keys(session: Session, email: Email, as_json: Json = False) -> None:
    """Show a user's keys, newest first."""
    user = await session.users.find(email)
    rows = await session.database.fetch(owned(user.id).order_by(api_keys.c.id.desc()))
    keys = [ApiKey.model_validate(row) for row in rows]
    empty = f"{user.email} has no keys."
    show_list(keys, as_json, lambda k: f"{k.id}  {k.name}  {','.join(k.scopes)}", empty)


@command(app)
async def revoke(
    session: Session,
    key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")],
    as_json: Json = False,
) -> None:
    """End a key at once."""
    await _keys(session).revoke(None, key_id, command_line())
    show({"id": key_id}, as_json, f"{key_id} is revoked.")


@command(app)
async def revoke_all(session: Session, email: Email, as_json: Json = False) -> None:
    """End all keys of a user at once."""
    user = await session.users.find(email)
    count = await _keys(session).revoke_all(user.id, command_line())
    show({"revoked": count}, as_json, f"{user.email}: {counted(count, 'key')} revoked.")


def _in_future(given: dt.datetime | None) -> dt.datetime | None:
    """The time in UTC. Raises `InvalidRequest` if it has passed."""
    expiry = given and given.replace(tzinfo=dt.UTC)
    if expiry and expiry <= utc_now():
        raise InvalidRequest("--expires-at has to lie in the future.")
    return expiry


def _keys(session: Session) -> Keys:
    return Keys(session.database, session.settings.project["name"])
