"""Finds the user by the e-mail address and password of a request."""

import asyncio
import base64
import binascii
import os
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from app.auth.authenticator import no_keys
from app.auth.basic.attempts import Attempts, network_of, too_many
from app.auth.basic.turns import NoTurn, Turns
from gateway.accounts.lookup import to_principal
from gateway.accounts.passwords import HASHER, Passwords
from gateway.accounts.principals import Principal
from gateway.batcher import Batcher
from gateway.errors import DatabaseUnavailable, InvalidCredentials
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer

# Two at a time bound the memory and the processor time that hashes take.
HASHES_AT_ONCE = 2
HASHES_WAITING = 200
HASH_WAITS_SECONDS = 5.0
HASH_NICENESS = 10
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
        self._attempts = Attempts(limiter, signer)
        self._signer = signer
        self._turns = Turns(HASHES_AT_ONCE, HASHES_WAITING, HASH_WAITS_SECONDS)
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "hash", _give_way)
        self._nobody = HASHER.hash(secrets.token_urlsafe())
        self._checked: dict[bytes, float] = {}
        self._checking: dict[bytes, asyncio.Task[bool]] = {}

    async def authenticate(self, authorization: str, address: str) -> Principal:
        return await self._authenticate(*_credentials(authorization), address)

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        email, password = fields.get("email", ""), fields.get("password", "")
        return await self._authenticate(email.strip().lower(), password, address)

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
        stored = row.hash if row else self._nobody
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
        network = network_of(address)
        # A password that was right is no guess.
        attempt = None if check in self._checked else await self._attempts.admit(email, network)
        first = attempt is None or attempt.is_own
        right = await self._verify(password, stored, network, first=first)
        if right:
            self._remember(check)
            if attempt:
                await self._attempts.succeed(attempt)
        return right

    async def _verify(self, password: str, stored: str, network: str, *, first: bool) -> bool:
        try:
            async with self._turns.turn(network, first=first):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, HASHER.verify, password, stored)
        except NoTurn as error:
            raise too_many(HASH_WAITS_SECONDS) from error

    def _remember(self, check: bytes) -> None:
        self._checked.pop(check, None)
        self._checked[check] = time.monotonic() + CHECK_IS_KEPT_SECONDS
        if len(self._checked) > CHECKS_KEPT:
            del self._checked[next(iter(self._checked))]  # the oldest


def _give_way() -> None:
    """Lower the priority of a thread that hashes, and of those that it starts: a flood of log-ins
    takes only the processor time that answers leave. Linux has a priority for each thread.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASH_NICENESS)


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
