"""Verifies the access tokens of Supabase Auth.

https://supabase.com/docs/guides/auth/jwts
"""

import datetime as dt
from typing import Any, NamedTuple

import jwt

from gateway.accounts.principals import Role
from gateway.accounts.supabase_keys import ALGORITHMS, SigningKeys
from gateway.errors import InvalidCredentials

AUDIENCE = "authenticated"
# The role of people. Tokens of services (service_role) verify as well.
SIGNED_IN = "authenticated"
LEEWAY = dt.timedelta(seconds=10)
REQUIRED = ["iss", "aud", "sub", "exp"]
MAX_CHARACTERS = 16_000
MAX_SUBJECT = 64


class Account(NamedTuple):
    """An account of Supabase. `role` is that of `app_metadata`, which its user cannot change."""

    subject: str
    email: str
    role: Role | None
    expires_at: dt.datetime


class Verifier:
    """Verifies tokens of one issuer."""

    def __init__(self, issuer: str, keys: SigningKeys) -> None:
        self._issuer = issuer
        self._keys = keys

    async def read(self, token: str) -> Account:
        """The account of a token. Raises `InvalidCredentials`, and `ProviderError`."""
        key = await self._key_of(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=AUDIENCE,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise invalid() from error
        if claims.get("role") != SIGNED_IN or claims.get("is_anonymous", False) is not False:
            raise invalid()
        return _account(claims)

    async def _key_of(self, token: str) -> jwt.PyJWK:
        if len(token) > MAX_CHARACTERS or not token.isascii():
            raise invalid()
        try:
            header = jwt.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise invalid() from error
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in ALGORITHMS or not isinstance(key_id, str):
            raise invalid()
        key = await self._keys.get(key_id)
        if key is None or key.algorithm_name != algorithm:
            raise invalid()
        return key


def invalid() -> InvalidCredentials:
    """The error for a token that is not valid, for whatever reason."""
    return InvalidCredentials(
        "A valid access token of Supabase is needed: Authorization: Bearer <token>.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def _account(claims: dict[str, Any]) -> Account:
    subject, email = str(claims["sub"]), claims.get("email")
    if not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise invalid()
    metadata = claims.get("app_metadata")
    given = metadata.get("role") if isinstance(metadata, dict) else None
    role = Role(given) if given in set(Role) else None
    ends = dt.datetime.fromtimestamp(claims["exp"], dt.UTC)
    return Account(subject, email if isinstance(email, str) else "", role, ends)
