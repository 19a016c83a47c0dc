"""JSON Web Tokens: an access token of minutes in `Authorization: Bearer`, renewed by `/auth`."""

import datetime as dt

from fastapi.security import HTTPBearer

from app.auth.jwt.authenticator import JwtAuthenticator
from app.auth.passwords import FIELDS as FIELDS
from app.auth.passwords import NO_CREDENTIALS as NO_CREDENTIALS
from app.auth.passwords import buttons as buttons
from app.auth.passwords import create_credential as create_credential
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.logins import Logins
from gateway.accounts.password_checker import PasswordChecker
from gateway.accounts.signed_links import Links
from gateway.accounts.tokens import ACCESS_LASTS, KeyRing
from gateway.db.engine import Database
from gateway.db.tables import utc_now
from gateway.mail import Mailer
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer

SCHEME = HTTPBearer(
    scheme_name="login",
    bearerFormat="JWT",
    description="An access token, from POST /auth/login.",
    auto_error=False,
)


def open_authenticator(
    settings: Settings, database: Database, limiter: Limiter
) -> JwtAuthenticator:
    checker = PasswordChecker(limiter, Signer(settings.secret_key.get_secret_value()))
    ring, links = open_key_ring(settings), open_links(settings, database)
    return JwtAuthenticator(database, limiter, ring, checker, links, Mailer(settings.smtp_url))


def open_key_ring(settings: Settings) -> KeyRing:
    """The keys of tokens. Another name or address of the service is another issuer."""
    name = settings.project["name"]
    return KeyRing(settings.public_url or name, name, *settings.gateway.secret_keys)


def open_links(settings: Settings, database: Database) -> Links:
    return Links(database, open_key_ring(settings), settings.public_address)


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
