"""The format of an API key, and the table of keys."""

import binascii
import datetime as dt
import re
import secrets
import string
from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    Row,
    Select,
    String,
    Table,
    insert,
    select,
    update,
)

from gateway.accounts.audit import Actor, record
from gateway.accounts.lookup import PRINCIPAL_COLUMNS
from gateway.accounts.principals import NO_LIMITS, KeyLimits, Scope
from gateway.accounts.sessions import digest, end
from gateway.db.engine import Database, Query
from gateway.db.tables import (
    Json,
    UtcDateTime,
    for_user,
    metadata,
    sessions,
    users,
    utc_now,
)
from gateway.errors import NotFound
from gateway.ids import new_id
from gateway.schemas.base import utc_text

KEY_ID = re.compile(r"key_[0-9a-f]{32}")
ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
SECRET_LENGTH = 43
"""256 bits in base 62."""
CHECKSUM_LENGTH = 6

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("user_id", String(40), ForeignKey("users.id"), nullable=False),
    Column("name", String(100), nullable=False),
    Column("secret_hash", String(64), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
    Column("revoked_at", UtcDateTime),
    # The limits of the key, within those of its owner; the names are those of `KeyLimits`.
    Column("requests_per_minute", Integer),
    Column("tokens_per_minute", Integer),
    Column("concurrent_generations", Integer),
    Column("daily_budget_nano_usd", BigInteger),
    Column("monthly_budget_nano_usd", BigInteger),
    Index(None, "user_id", "id"),
    info={"prefix": "key"},
)


def compose(slug: str, key_id: str, secret: str) -> str:
    """The text of a key. Its checksum detects a mistyped key without a query."""
    body = f"{slug}_live_{key_id.removeprefix('key_')}_{secret}"
    return body + checksum(body)


def parse(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key; None if `text` does not have a key's format.

    Accepts any slug, so that keys stay valid when the service is renamed.
    """
    body, given = text[:-CHECKSUM_LENGTH], text[-CHECKSUM_LENGTH:]
    slug, _, parts = body.rpartition("_live_")
    key_id, _, secret = parts.rpartition("_")
    if not text.isascii() or checksum(body) != given or not slug:
        return None
    if not key_id.isalnum():  # Some databases refuse a NUL, and with it the whole query.
        return None
    return f"key_{key_id}", secret


def checksum(body: str) -> str:
    """CRC-32 in base 62, as at the end of GitHub's tokens."""
    number, digits = binascii.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits


class Keys:
    """The table of API keys. Every query on behalf of a user filters by the user."""

    def __init__(self, database: Database, slug: str) -> None:
        self._database = database
        self._slug = slug

    async def create(
        self,
        user_id: str,
        name: str,
        scopes: Collection[Scope],
        actor: Actor,
        expires_at: dt.datetime | None = None,
        limits: KeyLimits = NO_LIMITS,
    ) -> tuple[str, Row[Any]]:
        """A new key and its row. The key cannot be read again: only its hash is stored."""
        secret = "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
        key_id = new_id("key")
        granted = sorted(set(scopes))
        row = insert(api_keys).values(
            id=key_id,
            user_id=user_id,
            name=name,
            secret_hash=digest(secret),
            scopes=granted,
            created_at=utc_now(),
            expires_at=expires_at,
            **limits._asdict(),
        )
        after = {"user_id": user_id, "scopes": granted, **_given(expires_at, limits)}

        def write(connection: Connection) -> Row[Any]:
            record(connection, actor, "create", f"key:{key_id}", None, after)
            return connection.execute(row.returning(api_keys)).one()

        created = await self._database.transact(write)
        return compose(self._slug, key_id, secret), created

    async def revoke(self, user_id: str | None, key_id: str, actor: Actor) -> None:
        """Revoke a key and its sessions at once. Without `user_id`, for the operator, of any user.

        Raises `NotFound`, also for another user's key.
        """
        own = () if user_id is None else (api_keys.c.user_id == user_id,)
        key = update(api_keys).where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None), *own)
        revoked = key.values(revoked_at=utc_now()).returning(api_keys.c.user_id)

        def write(connection: Connection) -> bool:
            row = connection.execute(revoked).one_or_none()
            if row:
                before = {"user_id": row.user_id}
                record(connection, actor, "revoke", f"key:{key_id}", before, None)
                end(connection, sessions.c.key_id == key_id, actor)
            return row is not None

        if not KEY_ID.fullmatch(key_id) or not await self._database.transact(write):
            raise NotFound("There is no such key.")

    async def revoke_all(self, user_id: str, actor: Actor) -> int:
        """Revoke all keys of a user and their sessions at once; returns how many keys there were.

        Raises `DatabaseUnavailable`.
        """
        own = api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None)
        revoked = update(api_keys).where(*own).values(revoked_at=utc_now())

        def write(connection: Connection) -> int:
            ids = connection.execute(revoked.returning(api_keys.c.id)).scalars().all()
            for key_id in ids:
                record(connection, actor, "revoke", f"key:{key_id}", {"user_id": user_id}, None)
            keys = select(api_keys.c.id).where(api_keys.c.user_id == user_id)
            end(connection, sessions.c.key_id.in_(keys), actor)
            return len(ids)

        return await self._database.transact(write)

    async def with_owners(self, key_ids: Collection[str]) -> dict[str, Any]:
        """The active ones of these keys, with role, plan and team of their owners, by id."""
        asked = [{"id": key_id} for key_id in key_ids]
        rows = await self._database.find(Query(_usable(type(self._database)), asked))
        return {row.id: row for row in rows}

    async def touch(self, key_ids: Collection[str]) -> None:
        """Set the last use of these keys to now."""
        used = update(api_keys).where(api_keys.c.id.in_(key_ids)).values(last_used_at=utc_now())
        await self._database.transact(lambda connection: connection.execute(used))


def _given(expires_at: dt.datetime | None, limits: KeyLimits) -> dict[str, Any]:
    """The expiry and limits of a key, for the audit."""
    ends = {} if expires_at is None else {"expires_at": utc_text(expires_at)}
    return ends | {name: most for name, most in limits._asdict().items() if most is not None}


@cache
def _usable(database: type[Database]) -> Select[Any]:
    """The query for active keys among given ones, with role, plan and team of their owners."""
    asked = database.rows([api_keys.c.id])
    return (
        select(api_keys, *PRINCIPAL_COLUMNS)
        .join_from(api_keys, users, users.c.id == api_keys.c.user_id)
        .where(
            api_keys.c.id == asked["id"],
            api_keys.c.revoked_at.is_(None),
            users.c.disabled_at.is_(None),
        )
    )


def limits_of(row: Any) -> KeyLimits:
    """The limits in a row of `api_keys`."""
    return KeyLimits(*(getattr(row, name) for name in KeyLimits._fields))


def owned(user_id: str) -> Select[Any]:
    """The query for a user's keys that are not revoked."""
    own = api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None)
    return for_user(select(api_keys).where(*own), user_id)
