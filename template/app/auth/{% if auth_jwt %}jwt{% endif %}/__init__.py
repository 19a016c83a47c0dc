"""JSON Web Tokens: an access token of minutes in `Authorization: Bearer`, renewed by `/auth`."""

import datetime as dt

from fastapi.security import HTTPBearer

from app.auth.jwt.authenticator import JwtAuthenticator
from app.auth.jwt.links import Links
from app.auth.jwt.mail import open_mailer
from app.auth.jwt.tokens import ACCESS_LASTS, open_key_ring
from app.auth.passwords.checker import PasswordChecker
from app.auth.passwords.credentials import (
    FIELDS,
    NO_CREDENTIALS,
    buttons,
    create_credential,
)
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.logins import Logins
from gateway.db.engine import Database
from gateway.db.tables import utc_now
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer

__all__ = [
    "FIELDS",
    "NO_CREDENTIALS",
    "SCHEME",
    "authorization",
    "buttons",
    "create_access",
    "create_credential",
    "open_authenticator",
]

SCHEME = HTTPBearer(
    scheme_name="login",
    bearerFormat="JWT",
    description="An access token, from POST /auth/login.",
    auto_error=False,
)


def open_authenticator(
    settings: Settings, database: Database, limiter: Limiter
) -> JwtAuthenticator:
    signer = Signer(settings.secret_key.get_secret_value())
    ring = open_key_ring(settings)
    links = Links(database, ring, settings.public_address)
    checker = PasswordChecker(limiter, signer)
    return JwtAuthenticator(database, limiter, ring, checker, links, open_mailer(settings))


async def create_access(
    settings: Settings,
    database: Database,
    user_id: str,
    _: Actor,
    expires_at: dt.datetime | None = None,
) -> str:
    """An access token, for programs of this machine. It lasts for minutes at most."""
    ends = expires_at or utc_now() + ACCESS_LASTS
    login = await Logins(database).start(user_id, ends)
    return open_key_ring(settings).access_token(user_id, login.id)


def authorization(_: str, credential: str) -> str:
    """The header for an access token."""
    return f"Bearer {credential}"
