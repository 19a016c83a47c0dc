"""The tables of log-ins and of their refresh tokens.

A log-in is what a person ends by logging out. Its refresh token is replaced at every use: a used
one that comes again, later than a retry would, was copied, and ends the log-in (RFC 9700, section
4.14.2).
"""

import datetime as dt
import logging
import secrets
from collections.abc import Collection
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)

from gateway.accounts.lookup import PRINCIPAL_COLUMNS
from gateway.accounts.sessions import digest
from gateway.db.engine import Database, Query
from gateway.db.tables import UtcDateTime, metadata, owner, users, utc_now
from gateway.errors import Conflict, InvalidCredentials
from gateway.ids import new_id

logger = logging.getLogger("app")
LOGIN_LASTS = dt.timedelta(days=30)
# A client that got no answer repeats its request within this time.
GRACE = dt.timedelta(seconds=10)

logins = Table(
    "logins",
    metadata,
    Column("id", String(40), primary_key=True),
    owner(),
    # That of its user at the time.
    Column("token_version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Index(None, "user_id", "id"),
    info={"prefix": "lgn"},
)
refresh_tokens = Table(
    "refresh_tokens",
    metadata,
    Column("secret_hash", String(64), primary_key=True),
    Column("login_id", String(40), ForeignKey("logins.id"), nullable=False),
    owner(),
    Column("created_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Index(None, "login_id"),
    Index(None, "user_id"),
)


class Login(NamedTuple):
    """A log-in with its newest refresh token, which is stored as a hash only."""

    id: str
    user_id: str
    refresh_token: str


class Logins:
    """The tables of log-ins and of their refresh tokens."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def start(
        self, user_id: str, expires_at: dt.datetime | None = None, version: int | None = None
    ) -> Login:
        """A new log-in of a user. It lasts 30 days, or until `expires_at`.

        `version` is that of the user's tokens when the password was checked.
        """
        return await self._database.transact(
            lambda connection: start(connection, user_id, expires_at, version)
        )

    async def refresh(self, token: str) -> Login:
        """The log-in of a refresh token, with the next token.

        Raises `InvalidCredentials`, and `Conflict` if the token was used within the last seconds.
        """
        login = await self._database.transact(lambda connection: _rotate(connection, token))
        if login is None:
            raise InvalidCredentials("The refresh token is not valid; log in again.")
        return login

    async def end(self, user_id: str, login_id: str) -> None:
        """End a log-in of a user. Idempotent."""
        own = (logins.c.id == login_id, logins.c.user_id == user_id)
        await self._database.transact(lambda connection: _end(connection, *own))

    async def with_owners(self, login_ids: Collection[str]) -> dict[str, Any]:
        """The active ones of these log-ins, with their users, by id."""
        asked = [{"id": login_id} for login_id in login_ids]
        rows = await self._database.find(Query(_active(type(self._database)), asked))
        now = utc_now()
        return {row.id: row for row in rows if row.expires_at > now}


def start(
    connection: Connection,
    user_id: str,
    expires_at: dt.datetime | None = None,
    version: int | None = None,
) -> Login:
    """A new log-in, in the transaction of `connection`. Removes the user's expired ones."""
    _forget_expired(connection, user_id)
    current = select(users.c.token_version).where(users.c.id == user_id).scalar_subquery()
    login_id = new_id("lgn")
    row = insert(logins).values(
        id=login_id,
        user_id=user_id,
        token_version=current if version is None else version,
        created_at=utc_now(),
        expires_at=expires_at or utc_now() + LOGIN_LASTS,
    )
    connection.execute(row)
    return Login(login_id, user_id, _next_token(connection, user_id, login_id))


def _rotate(connection: Connection, token: str) -> Login | None:
    """Use a refresh token. Of simultaneous uses one succeeds."""
    own = refresh_tokens.c.secret_hash == digest(token)
    unused = update(refresh_tokens).where(own, refresh_tokens.c.used_at.is_(None))
    used = unused.values(used_at=utc_now()).returning(refresh_tokens.c.login_id)
    login_id = connection.execute(used).scalar_one_or_none()
    if login_id is None:
        _refuse_reuse(connection, connection.execute(select(refresh_tokens).where(own)).first())
        return None
    owner_id = _owner_of(connection, login_id)
    if owner_id is None:
        return None
    return Login(login_id, owner_id, _next_token(connection, owner_id, login_id))


def _refuse_reuse(connection: Connection, row: Row[Any] | None) -> None:
    if row is None or _owner_of(connection, row.login_id) is None:
        return
    if utc_now() - row.used_at <= GRACE:
        raise Conflict("This refresh token was just used; use the one of that answer.")
    _end(connection, logins.c.id == row.login_id)
    logger.warning("A used refresh token came again, and its log-in was ended: %s", row.login_id)


def _owner_of(connection: Connection, login_id: str) -> str | None:
    """The user of a log-in that is active."""
    active = _joined(logins.c.user_id).where(
        logins.c.id == login_id, logins.c.expires_at > utc_now()
    )
    return connection.execute(active).scalar_one_or_none()


def _next_token(connection: Connection, user_id: str, login_id: str) -> str:
    token = secrets.token_urlsafe(32)
    row = {"secret_hash": digest(token), "login_id": login_id, "user_id": user_id}
    connection.execute(insert(refresh_tokens), {**row, "created_at": utc_now()})
    return token


def _end(connection: Connection, *which: Any) -> None:
    still = update(logins).where(*which, logins.c.ended_at.is_(None))
    connection.execute(still.values(ended_at=utc_now()))


def _forget_expired(connection: Connection, user_id: str) -> None:
    old = select(logins.c.id).where(logins.c.user_id == user_id, logins.c.expires_at < utc_now())
    login_ids = connection.execute(old).scalars().all()
    if login_ids:
        tokens = delete(refresh_tokens).where(refresh_tokens.c.login_id.in_(login_ids))
        connection.execute(tokens)
        connection.execute(delete(logins).where(logins.c.id.in_(login_ids)))


def _joined(*columns: Any) -> Select[Any]:
    """The query for log-ins that were not ended, with their users."""
    return (
        select(*columns)
        .join_from(logins, users, users.c.id == logins.c.user_id)
        .where(
            logins.c.ended_at.is_(None),
            logins.c.token_version == users.c.token_version,
            users.c.disabled_at.is_(None),
        )
    )


@cache
def _active(database: type[Database]) -> Select[Any]:
    """The query for active ones among given log-ins."""
    asked = database.rows([logins.c.id])
    columns = (*PRINCIPAL_COLUMNS, users.c.must_verify_email)
    query = _joined(logins.c.id, logins.c.user_id, logins.c.expires_at, *columns)
    return query.where(logins.c.id == asked["id"])
