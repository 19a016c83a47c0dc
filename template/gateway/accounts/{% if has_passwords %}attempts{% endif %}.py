"""How many log-ins are tried: by address, by account, and by both together."""

from typing import NamedTuple

from gateway.accounts.throttle import too_many
from gateway.rate_limits.base import AcquireRequest, Bucket, Limiter
from gateway.signing import Signer

# A minute, each: from an address on all accounts, from an address on an account, and on an account
# from all addresses that are not its own.
FROM_ADDRESS = 60
FROM_ADDRESS_ON_ACCOUNT = 10
ON_ACCOUNT = 600
# A minute: mails that a network may ask for, and mails to an account.
MAILS_FROM_ADDRESS = 10
MAILS_TO_ACCOUNT = 1
# An address is an account's own for so long after a log-in from there that succeeded.
OWN_SECONDS = 30 * 24 * 3600


class Attempt(NamedTuple):
    """A log-in that was let in, and whether it comes from the account's own address."""

    own: str
    is_own: bool
    taken: AcquireRequest


class Attempts:
    """Counts log-ins before anything is hashed; those that succeed do not count.

    From an account's own address, only its log-ins from there count: guesses from elsewhere, and
    at other accounts, do not keep its owner out. Account and address are known by a keyed digest.
    """

    def __init__(self, limiter: Limiter, signer: Signer) -> None:
        self._limiter = limiter
        self._signer = signer

    async def admit(self, email: str, network: str) -> Attempt:
        """Count a log-in. Raises `TooManyAttempts`, and `LimiterUnavailable`."""
        pair = self._digest(f"{email}\0{network}")
        own = f"own:{pair}"
        is_own = (await self._limiter.get([own]))[0] is not None
        buckets = [Bucket("attempts", f"{pair}:pair", FROM_ADDRESS_ON_ACCOUNT)]
        if not is_own:
            buckets += [
                Bucket("attempts", f"{self._digest(network)}:address", FROM_ADDRESS),
                Bucket("attempts", f"{self._digest(email)}:account", ON_ACCOUNT),
            ]
        taken = AcquireRequest(tuple(buckets))
        admission = await self._limiter.acquire(taken)
        if not admission.admitted:
            raise too_many(admission.longest_wait.wait_seconds)
        return Attempt(own, is_own, taken)

    async def succeed(self, attempt: Attempt) -> None:
        """Give back what the log-in took, and take its address for the account's own."""
        await self._limiter.release(attempt.taken)
        await self._limiter.set(attempt.own, "1", OWN_SECONDS)

    async def admit_mail(self, email: str, network: str) -> bool:
        """Count a mail that a stranger asks for; False if its account just got another.

        Raises `TooManyAttempts`, whether there is such an account or not.
        """
        source = Bucket("attempts", f"{self._digest(network)}:mails", MAILS_FROM_ADDRESS)
        admission = await self._limiter.acquire(AcquireRequest((source,)))
        if not admission.admitted:
            raise too_many(admission.longest_wait.wait_seconds)
        account = Bucket("attempts", f"{self._digest(email)}:mail", MAILS_TO_ACCOUNT)
        return (await self._limiter.acquire(AcquireRequest((account,)))).admitted

    def _digest(self, text: str) -> str:
        return self._signer.digest("attempts", text.encode()).hex()
