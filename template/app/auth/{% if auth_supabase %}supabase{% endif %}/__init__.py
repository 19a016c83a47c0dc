"""Supabase Auth: people sign in there, and send the tokens that they get."""

import datetime as dt
from dataclasses import replace

from fastapi.security import HTTPBearer

from app.auth.port import Button, Field
from app.auth.supabase.method import SupabaseMethod
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.sessions import Sessions
from gateway.accounts.supabase_keys import SigningKeys
from gateway.accounts.supabase_tokens import Verifier
from gateway.accounts.users import Users
from gateway.db.engine import Database
from gateway.db.tables import utc_now
from gateway.errors import StartError
from gateway.rate_limits.base import Limiter

SCHEME = HTTPBearer(
    scheme_name="login",
    bearerFormat="JWT",
    description="An access token of Supabase Auth.",
    auto_error=False,
)
FIELDS = (
    Field("email", "E-mail address", "email", "username"),
    Field("password", "Password", "password", "current-password"),
)
# For how long a program of this machine has access, if it does not say.
ACCESS_LASTS = dt.timedelta(minutes=10)
NO_CREDENTIALS = "no credential: people sign in with Supabase, and get their user there"


def buttons(_: Settings) -> tuple[Button, ...]:
    return ()


def open_authenticator(settings: Settings, database: Database, _: Limiter) -> SupabaseMethod:
    if settings.production and not settings.supabase_url:
        raise StartError("SUPABASE_URL is not set: https://PROJECT.supabase.co, for example")
    base = settings.supabase_url.rstrip("/") + "/auth/v1"
    verifier = Verifier(base, SigningKeys(f"{base}/.well-known/jwks.json"))
    key = settings.supabase_publishable_key.get_secret_value()
    is_open = settings.registration == "open"
    return SupabaseMethod(database, verifier, base, key, settings.policy_dir, is_open=is_open)


async def create_access(
    _: Settings,
    database: Database,
    user_id: str,
    actor: Actor,
    expires_at: dt.datetime | None = None,
) -> str:
    """The token of a session, for programs of this machine: Supabase makes no token for them."""
    principal = await Users(database).principal(user_id)
    ends = expires_at or utc_now() + ACCESS_LASTS
    own = replace(principal, expires_at=ends)
    return (await Sessions(database).create(own, actor.request_id))[0]


async def create_credential(
    _: Settings, __: Database, ___: str, ____: Actor, _____: dt.datetime | None = None
) -> str | None:
    """None: people have a credential at Supabase alone."""
    return None


def authorization(_: str, credential: str) -> str:
    """The header for an access token."""
    return f"Bearer {credential}"
