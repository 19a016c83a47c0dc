"""The form and the credential of log-ins with a password: their part of `app/auth/port.py`."""

import datetime as dt

from app.auth.port import Button, Field
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.passwords import Passwords
from gateway.db.engine import Database

FIELDS = (
    Field("email", "E-mail address", "email", "username"),
    Field("password", "Password", "password", "current-password"),
)
NO_CREDENTIALS = ""


def buttons(_: Settings) -> tuple[Button, ...]:
    return ()


async def create_credential(
    _: Settings,
    database: Database,
    user_id: str,
    actor: Actor,
    __: dt.datetime | None = None,
) -> str:
    """A new password, for the command line. It lasts until there is a newer one."""
    return await Passwords(database).reset(user_id, actor)
