"""The table of password hashes."""

import secrets
from collections.abc import Collection
from functools import cache
from typing import Any

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import Column, Connection, ForeignKey, Select, String, Table, delete, insert, select

from gateway.accounts.audit import Actor, record
from gateway.accounts.lookup import PRINCIPAL_COLUMNS
from gateway.accounts.sessions import end_access
from gateway.db.engine import Database, Query
from gateway.db.tables import UtcDateTime, metadata, users, utc_now

# OWASP's minimum for Argon2id: 19 MiB, two passes.
HASHER = PasswordHash((Argon2Hasher(time_cost=2, memory_cost=19 * 1024, parallelism=1),))

passwords = Table(
    "passwords",
    metadata,
    Column("user_id", String(40), ForeignKey("users.id"), primary_key=True),
    Column("hash", String(200), nullable=False),
    Column("changed_at", UtcDateTime, nullable=False),
)

OWN = (users.c.must_verify_email,)


class Passwords:
    """The table of password hashes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reset(self, user_id: str, actor: Actor) -> str:
        """Set a new random password of 144 bits for a user, end their sessions, and return it."""
        password = secrets.token_urlsafe(18)
        stored = HASHER.hash(password)

        def replace(connection: Connection) -> None:
            record(connection, actor, "reset", f"password:{user_id}", None, None)
            store(connection, user_id, stored, actor)

        await self._database.transact(replace)
        return password

    async def with_owners(self, emails: Collection[str]) -> dict[str, Any]:
        """The active users among these e-mail addresses, with team and password hash."""
        asked = [{"email": email} for email in emails]
        rows = await self._database.find(Query(_active(type(self._database)), asked))
        return {row.email: row for row in rows}


def store(connection: Connection, user_id: str, stored: str, actor: Actor) -> None:
    """Replace the hash of a user's password, and end what was given under the old one."""
    row = {"user_id": user_id, "hash": stored, "changed_at": utc_now()}
    connection.execute(delete(passwords).where(passwords.c.user_id == user_id))
    connection.execute(insert(passwords), row)
    end_access(connection, user_id, actor)


@cache
def _active(database: type[Database]) -> Select[Any]:
    """The query for active users among given e-mail addresses."""
    asked = database.rows([users.c.email])
    return (
        select(users.c.id, users.c.email, *PRINCIPAL_COLUMNS, *OWN, passwords.c.hash)
        .join_from(users, passwords, passwords.c.user_id == users.c.id)
        .where(users.c.email == asked["email"], users.c.disabled_at.is_(None))
    )
