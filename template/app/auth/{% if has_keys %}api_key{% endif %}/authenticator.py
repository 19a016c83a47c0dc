"""Finds the user by the API key of a request."""

import datetime as dt
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.accounts.api_keys import Keys, limits_of, parse
from gateway.accounts.lookup import to_principal
from gateway.accounts.principals import NO_LIMITS, Principal, Scope
from gateway.accounts.sessions import digest
from gateway.batcher import Batcher
from gateway.db.tables import utc_now
from gateway.errors import DatabaseUnavailable, InvalidCredentials

LAST_USE_IS_KEPT_TO = dt.timedelta(minutes=1)


class ApiKeyAuthenticator:
    """Looks a key up at every request, so that a revoked one ends at once on every replica.

    Requests that wait at the same time share one query.
    """

    is_ambient = False

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._lookups: Batcher[str, Any] = Batcher(self._find, outage=DatabaseUnavailable)
        self._touches: Batcher[str, None] = Batcher(self._touch, outage=DatabaseUnavailable)

    async def authenticate(self, authorization: str, address: str) -> Principal:
        scheme, _, text = authorization.partition(" ")
        parts = parse(text.strip()) if scheme.lower() == "bearer" else None
        row = await self._lookups.submit(parts[0]) if parts else None
        if row is None or parts is None or not _matches(row, parts[1]):
            raise InvalidCredentials(
                "A valid API key is needed: Authorization: Bearer <key>. "
                "`python -m app keys create` makes one.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await self._use(row)

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        return await self.authenticate(f"Bearer {fields.get('api_key', '')}", address)

    async def log_out(self, authorization: str, *, everywhere: bool) -> None:
        """A credential stays."""

    async def with_key(self, key_id: str) -> Principal:
        row = await self._lookups.submit(key_id)
        if row is None or not _is_valid(row):
            raise InvalidCredentials("The API key of this session has ended; sign in again.")
        return await self._use(row)

    async def _use(self, row: Any) -> Principal:
        if row.last_used_at is None or utc_now() - row.last_used_at > LAST_USE_IS_KEPT_TO:
            await self._touches.submit(row.id)
        limits = limits_of(row)
        return to_principal(
            row,
            row.user_id,
            frozenset(map(Scope, row.scopes)),
            key_id=None if limits == NO_LIMITS else row.id,
            limits=limits,
            expires_at=row.expires_at,
            credential_id=row.id,
        )

    async def _find(self, key_ids: list[str]) -> Sequence[Any]:
        rows = await self._keys.with_owners(set(key_ids))
        return [rows.get(key_id) for key_id in key_ids]

    async def _touch(self, key_ids: list[str]) -> Sequence[None]:
        await self._keys.touch(set(key_ids))
        return [None] * len(key_ids)


def _matches(row: Any, secret: str) -> bool:
    same = hmac.compare_digest(row.secret_hash, digest(secret))
    return same and _is_valid(row)


def _is_valid(row: Any) -> bool:
    return row.expires_at is None or bool(row.expires_at > utc_now())
