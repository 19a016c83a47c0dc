"""Browser sessions: an opaque token in a cookie, whose hash is a row. A log-out deletes the row.

https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html
"""

import datetime as dt
import hashlib
import secrets
from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from gateway.accounts.audit import Actor, record
from gateway.accounts.lookup import PRINCIPAL_COLUMNS
from gateway.accounts.principals import Principal
from gateway.db.engine import Database, Query
from gateway.db.tables import sessions, users, utc_now
from gateway.errors import InvalidCredentials
from gateway.ids import new_id

LIFE = dt.timedelta(days=14)
# Beyond these, a new session of a user ends the oldest one.
MAX_PER_USER = 100
TOKEN_BYTES = 32


def digest(token: str) -> str:
    """The stored hash of a token. A fast hash is enough, as the token has 256 random bits."""
    return hashlib.sha256(token.encode()).hexdigest()


class Sessions:
    """The table of browser sessions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, principal: Principal, request_id: str | None) -> tuple[str, dt.datetime]:
        """The token of a new session with the scopes of `principal`, and when it expires.

        A session of an API key ends with the key at the latest. Raises `InvalidCredentials` if all
        that the user was given has ended since `principal` was found.
        """
        token, session_id, now = secrets.token_urlsafe(TOKEN_BYTES), new_id("ses"), utc_now()
        expires_at = min(now + LIFE, principal.expires_at or now + LIFE)
        row = insert(sessions).values(
            id=session_id,
            token_hash=digest(token),
            user_id=principal.user_id,
            key_id=principal.credential_id,
            scopes=sorted(principal.scopes),
            created_at=now,
            expires_at=expires_at,
        )
        actor = Actor(principal.user_id, request_id)

        def write(connection: Connection) -> None:
            _require_current(connection, principal)
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            connection.execute(row)
            connection.execute(delete(sessions).where(_beyond(principal.user_id)))
            after = {"user_id": principal.user_id, "key_id": principal.credential_id}
            record(connection, actor, "create", f"session:{session_id}", None, after)

        await self._database.transact(write)
        return token, expires_at

    async def with_owners(self, hashes: Collection[str]) -> dict[str, Any]:
        """The sessions with these hashes, with role, plan and team of their users, by hash.

        Sessions that have expired are among them, those of disabled users are not.
        """
        asked = [{"token_hash": each} for each in hashes]
        rows = await self._database.find(Query(_usable(type(self._database)), asked))
        return {row.token_hash: row for row in rows}

    async def end(self, session_id: str, actor: Actor) -> None:
        """End a session at once. Idempotent."""
        own = sessions.c.id == session_id
        await self._database.transact(lambda connection: end(connection, own, actor))

    async def end_all(self, user_id: str, actor: Actor) -> int:
        """End all sessions and tokens of a user at once; returns how many sessions there were."""
        return await self._database.transact(
            lambda connection: end_access(connection, user_id, actor)
        )


def end_access(connection: Connection, user_id: str, actor: Actor) -> int:
    """End all that a user was given, but API keys: sessions, and tokens by their version.

    Returns how many sessions there were.
    """
    newer = update(users).values(token_version=users.c.token_version + 1)
    connection.execute(newer.where(users.c.id == user_id))
    return end(connection, sessions.c.user_id == user_id, actor)


def end(connection: Connection, which: ColumnElement[bool], actor: Actor) -> int:
    """End sessions in the transaction of what ends them; returns how many there were."""
    ended = delete(sessions).where(which).returning(sessions.c.id, sessions.c.user_id)
    rows = connection.execute(ended).all()
    for row in rows:
        record(connection, actor, "end", f"session:{row.id}", {"user_id": row.user_id}, None)
    return len(rows)


def _require_current(connection: Connection, principal: Principal) -> None:
    """Raise `InvalidCredentials` if the credential may be one that has ended meanwhile."""
    own = users.c.id == principal.user_id, users.c.disabled_at.is_(None)
    version = select(users.c.token_version).where(*own).with_for_update()
    if connection.execute(version).scalar_one_or_none() != principal.token_version:
        raise InvalidCredentials("This sign-in is over. Start again.")


def _beyond(user_id: str) -> ColumnElement[bool]:
    """The oldest sessions of a user beyond the most that they may have."""
    own = select(sessions.c.id).where(sessions.c.user_id == user_id)
    newest = own.order_by(sessions.c.id.desc()).limit(MAX_PER_USER)
    return (sessions.c.user_id == user_id) & sessions.c.id.not_in(newest)


@cache
def _usable(database: type[Database]) -> Select[Any]:
    """The query for sessions by their hashes, with role, plan and team of active users."""
    asked = database.rows([sessions.c.token_hash])
    return (
        select(sessions, users.c.email, *PRINCIPAL_COLUMNS)
        .join_from(sessions, users, users.c.id == sessions.c.user_id)
        .where(sessions.c.token_hash == asked["token_hash"], users.c.disabled_at.is_(None))
    )
