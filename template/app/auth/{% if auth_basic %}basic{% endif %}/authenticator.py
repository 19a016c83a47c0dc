"""Finds the user by the e-mail address and password of a request."""

import asyncio
import base64
import binascii
import time
from collections.abc import Mapping, Sequence
from typing import Any

from app.auth.authenticator import no_keys
from gateway.accounts.lookup import to_principal
from gateway.accounts.password_checker import PasswordChecker
from gateway.accounts.passwords import Passwords
from gateway.accounts.principals import Principal
from gateway.batcher import Batcher
from gateway.errors import DatabaseUnavailable, InvalidCredentials
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer

CHECK_IS_KEPT_SECONDS = 60
CHECKS_KEPT = 10_000


class BasicAuthenticator:
    """Reads the user at every request; a password that was right is not hashed again for a minute.

    A check is remembered by a keyed digest of user, stored hash and password, so that a change of
    password or a disabled user ends access at once. After its minute, the digest still shows
    that the caller knows the password: the hash comes before others, and counts as no attempt.
    """

    is_ambient = True

    def __init__(
        self,
        passwords: Passwords,
        limiter: Limiter,
        signer: Signer,
    ) -> None:
        self._passwords = passwords
        self._lookups: Batcher[str, Any] = Batcher(self._find, outage=DatabaseUnavailable)
        self.checker = PasswordChecker(limiter, signer)
        self._signer = signer
        self._checked: dict[bytes, float] = {}
        self._checking: dict[bytes, asyncio.Task[bool]] = {}

    async def authenticate(self, authorization: str, address: str) -> Principal:
        return await self._authenticate(*_credentials(authorization), address)

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        email, password = fields.get("email", ""), fields.get("password", "")
        return await self._authenticate(email.strip().lower(), password, address)

    async def log_out(self, authorization: str, *, everywhere: bool) -> None:
        """A credential stays."""

    async def with_key(self, key_id: str) -> Principal:
        raise no_keys()

    async def _authenticate(self, email: str, password: str, address: str) -> Principal:
        if "\0" in email:  # No database looks for it.
            raise _invalid()
        row = await self._lookups.submit(email)
        if not await self._is_right(email, password, row, address) or row is None:
            raise _invalid()
        return to_principal(row, row.id)

    async def _find(self, emails: list[str]) -> Sequence[Any]:
        rows = await self._passwords.with_owners(set(emails))
        return [rows.get(email) for email in emails]

    async def _is_right(self, email: str, password: str, row: Any, address: str) -> bool:
        stored = row.hash if row else self.checker.no_account_hash
        check = self._signer.digest("basic", f"{email}\0{stored}\0{password}".encode())
        if self._checked.get(check, 0) > time.monotonic():
            return True
        # Requests that arrive together with one password are one attempt, and one hash.
        if check not in self._checking:
            attempt = asyncio.create_task(self._attempt(check, email, password, stored, address))
            self._checking[check] = attempt
            attempt.add_done_callback(lambda _: self._checking.pop(check))
        return await asyncio.shield(self._checking[check])

    async def _attempt(
        self, check: bytes, email: str, password: str, stored: str, address: str
    ) -> bool:
        # A password that was right is no guess.
        known = check in self._checked
        right = await self.checker.is_right(email, password, stored, address, known=known)
        if right:
            self._remember(check)
        return right

    def _remember(self, check: bytes) -> None:
        self._checked.pop(check, None)
        self._checked[check] = time.monotonic() + CHECK_IS_KEPT_SECONDS
        if len(self._checked) > CHECKS_KEPT:
            del self._checked[next(iter(self._checked))]  # the oldest


def _credentials(header: str) -> tuple[str, str]:
    """E-mail address and password, in UTF-8 (RFC 7617)."""
    scheme, _, encoded = header.partition(" ")
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise _invalid() from error
    email, separator, password = decoded.partition(":")
    if scheme.lower() != "basic" or not separator:
        raise _invalid()
    return email.strip().lower(), password


def _invalid() -> InvalidCredentials:
    return InvalidCredentials(
        "E-mail address and password are needed (HTTP Basic).",
        headers={"WWW-Authenticate": 'Basic realm="service", charset="UTF-8"'},
    )
