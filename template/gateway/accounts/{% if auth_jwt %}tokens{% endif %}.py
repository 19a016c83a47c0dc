"""Signed tokens: access tokens (RFC 9068) and those of links, each with a type of its own.

Keys are derived from `SECRET_KEY` and `SECRET_KEY_PREVIOUS`: the first signs, and both are accepted
by the id in the token's header, so that a rotation logs no user out.
"""

import datetime as dt
import secrets
from typing import Any

import jwt

from gateway.db.tables import utc_now
from gateway.signing import derive

# The only algorithm, whatever a token's header says.
ALGORITHM = "HS256"
ACCESS = "at+jwt"
ACCESS_LASTS = dt.timedelta(minutes=10)
# The clocks of two replicas differ by less. ACCESS_LASTS and LEEWAY are 15 minutes at most.
LEEWAY = dt.timedelta(seconds=10)
REQUIRED = ["iss", "aud", "sub", "iat", "exp", "jti"]
# Longer texts are no tokens of this service.
MAX_CHARACTERS = 2000


class InvalidToken(Exception):
    """The token is not one of this service, has another type, or has expired."""


class KeyRing:
    """Signs with the first secret key; accepts what any of them signed."""

    def __init__(self, issuer: str, audience: str, *secret_keys: str) -> None:
        given = [key for key in secret_keys if key]
        self._keys = {_key_id(key): derive("tokens", key) for key in given}
        self._issuer = issuer
        self._audience = audience

    def access_token(self, user_id: str, login_id: str) -> str:
        """An access token of a log-in."""
        return self.sign(ACCESS, user_id, utc_now() + ACCESS_LASTS, sid=login_id)

    def sign(self, kind: str, subject: str, expires_at: dt.datetime, **claims: str) -> str:
        """A token of a type, about a subject."""
        key_id, key = next(iter(self._keys.items()))
        own = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": utc_now(),
            "exp": expires_at,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode({**own, **claims}, key, ALGORITHM, headers={"kid": key_id, "typ": kind})

    def read(self, kind: str, token: str) -> dict[str, Any]:
        """The claims of a token of this type. Raises `InvalidToken`."""
        if len(token) > MAX_CHARACTERS or not token.isascii():
            raise InvalidToken
        try:
            header = jwt.get_unverified_header(token)
            key = self._keys.get(str(header.get("kid")))
            if key is None or header.get("typ") != kind:
                raise InvalidToken
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": REQUIRED},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidToken from error
        return claims


def _key_id(secret_key: str) -> str:
    return derive("token key id", secret_key).hex()[:16]
