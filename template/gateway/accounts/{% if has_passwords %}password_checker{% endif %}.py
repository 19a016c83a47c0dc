"""Checks passwords: attempts are counted first, then hashes are computed in threads, in turn."""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from gateway.accounts.attempts import Attempts
from gateway.accounts.passwords import HASHER
from gateway.accounts.throttle import network_of, too_many
from gateway.accounts.turns import NoTurn, Turns
from gateway.rate_limits.base import Limiter
from gateway.signing import Signer

# Two at a time bound the memory and the processor time that hashes take.
HASHES_AT_ONCE = 2
HASHES_WAITING = 200
HASH_WAITS_SECONDS = 5.0
HASH_NICENESS = 10

Result = TypeVar("Result")


class PasswordChecker:
    """Compares passwords with stored hashes.

    `no_account_hash` is compared with for an unknown account, so that the answer takes as long.
    """

    def __init__(self, limiter: Limiter, signer: Signer) -> None:
        self.attempts = Attempts(limiter, signer)
        self._turns = Turns(HASHES_AT_ONCE, HASHES_WAITING, HASH_WAITS_SECONDS)
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "hash", _give_way)
        self.no_account_hash = HASHER.hash(secrets.token_urlsafe())

    async def is_right(
        self, email: str, password: str, stored: str, address: str, *, known: bool = False
    ) -> bool:
        """Whether the password is that of the hash `stored`.

        A `known` password was right before: it is no attempt. Raises `TooManyAttempts`, and
        `LimiterUnavailable`.
        """
        network = network_of(address)
        attempt = None if known else await self.attempts.admit(email, network)
        first = attempt is None or attempt.is_own
        right = await self._in_turn(lambda: HASHER.verify(password, stored), network, first=first)
        if right and attempt:
            await self.attempts.succeed(attempt)
        return right

    async def hash(self, password: str, address: str) -> str:
        """A new hash of the password. Raises `TooManyAttempts` if too many hashes wait."""
        return await self._in_turn(lambda: HASHER.hash(password), network_of(address))

    async def _in_turn(
        self, work: Callable[[], Result], network: str, *, first: bool = False
    ) -> Result:
        try:
            async with self._turns.turn(network, first=first):
                return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except NoTurn as error:
            raise too_many(HASH_WAITS_SECONDS) from error


def _give_way() -> None:
    """Lower the priority of a thread that hashes, and of those that it starts: a flood of log-ins
    takes only the processor time that answers leave. Linux has a priority for each thread.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASH_NICENESS)
