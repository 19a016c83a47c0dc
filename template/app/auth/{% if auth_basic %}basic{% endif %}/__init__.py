"""HTTP Basic: e-mail address and password."""

import base64
import datetime as dt

from fastapi import Request
from fastapi.security import HTTPBasic

from app.auth.basic.authenticator import BasicAuthenticator
from app.auth.port import Button, Field
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.passwords import Passwords
from gateway.db.engine import Database
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer


class Basic(HTTPBasic):
    """The scheme for the API's description; the authenticator reads the header itself."""

    async def __call__(self, _: Request) -> None:  # type: ignore[override]
        return None


SCHEME = Basic(scheme_name="login", description="E-mail address and password.")

FIELDS = (
    Field("email", "E-mail address", "email", "username"),
    Field("password", "Password", "password", "current-password"),
)
NO_CREDENTIALS = ""


def buttons(_: Settings) -> tuple[Button, ...]:
    return ()


def open_authenticator(
    settings: Settings, database: Database, limiter: Limiter
) -> BasicAuthenticator:
    signer = Signer(settings.secret_key.get_secret_value())
    return BasicAuthenticator(Passwords(database), limiter, signer)


async def create_credential(
    _: Settings,
    database: Database,
    user_id: str,
    actor: Actor,
    __: dt.datetime | None = None,
) -> str:
    """A new password, for the command line. It lasts until there is a newer one."""
    return await Passwords(database).reset(user_id, actor)


create_access = create_credential


def authorization(email: str, credential: str) -> str:
    """The header for a credential."""
    return "Basic " + base64.b64encode(f"{email}:{credential}".encode()).decode()
