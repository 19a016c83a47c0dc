"""API keys: `<slug>_live_<id>_<secret><checksum>` in the header `Authorization: Bearer`."""

import datetime as dt

from fastapi.security import HTTPBearer

from app.auth.api_key.authenticator import ApiKeyAuthenticator
from app.auth.port import Button, Field
from app.settings import Settings
from gateway.accounts.api_keys import Keys
from gateway.accounts.audit import Actor
from gateway.accounts.principals import Scope
from gateway.db.engine import Database
from gateway.rate_limits.base import Limiter

SCHEME = HTTPBearer(
    scheme_name="login", description="An API key of this service.", auto_error=False
)
FIELDS = (Field("api_key", "API key", "password", "off"),)
NAME = "made on the command line"
NO_CREDENTIALS = ""


def buttons(_: Settings) -> tuple[Button, ...]:
    return ()


def open_authenticator(settings: Settings, database: Database, _: Limiter) -> ApiKeyAuthenticator:
    return ApiKeyAuthenticator(Keys(database, settings.project["name"]))


async def create_credential(
    settings: Settings,
    database: Database,
    user_id: str,
    actor: Actor,
    expires_at: dt.datetime | None = None,
) -> str:
    """An API key with every scope, for the command line."""
    keys = Keys(database, settings.project["name"])
    secret, _ = await keys.create(user_id, NAME, list(Scope), actor, expires_at)
    return secret


create_access = create_credential


def authorization(_: str, credential: str) -> str:
    """The header for a credential."""
    return f"Bearer {credential}"
