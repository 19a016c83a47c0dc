"""HTTP Basic: e-mail address and password."""

import base64

from fastapi import Request
from fastapi.security import HTTPBasic

from app.auth.basic.authenticator import BasicAuthenticator
from app.auth.passwords import FIELDS as FIELDS
from app.auth.passwords import NO_CREDENTIALS as NO_CREDENTIALS
from app.auth.passwords import buttons as buttons
from app.auth.passwords import create_credential as create_credential
from app.settings import Settings
from gateway.accounts.passwords import Passwords
from gateway.db.engine import Database
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer


class Basic(HTTPBasic):
    """The scheme for the API's description; the authenticator reads the header itself."""

    async def __call__(self, _: Request) -> None:  # type: ignore[override]
        return None


SCHEME = Basic(scheme_name="login", description="E-mail address and password.")


def open_authenticator(
    settings: Settings, database: Database, limiter: Limiter
) -> BasicAuthenticator:
    signer = Signer(settings.secret_key.get_secret_value())
    return BasicAuthenticator(Passwords(database), limiter, signer)


create_access = create_credential


def authorization(email: str, credential: str) -> str:
    """The header for a credential."""
    return "Basic " + base64.b64encode(f"{email}:{credential}".encode()).decode()
