"""How many sign-ins an address may begin, and bring an answer of a provider to.

A beginning may ask the issuer for its documents. An answer writes to the database and asks the
provider, with up to ten seconds to wait.
"""

from typing import Literal

from gateway.accounts.throttle import network_of, too_many
from gateway.rate_limits.base import AcquireRequest, Bucket, Limiter
from gateway.signing import Signer

# A minute, of each step.
FROM_ADDRESS = 60


class Throttle:
    """Counts sign-ins by the network of an address, which is known by a keyed digest."""

    def __init__(self, limiter: Limiter, signer: Signer) -> None:
        self._limiter = limiter
        self._signer = signer

    async def admit(self, step: Literal["login", "callback"], address: str) -> None:
        """Count a step. Raises `TooManyAttempts`, and `LimiterUnavailable`."""
        network = self._signer.digest("attempts", network_of(address).encode()).hex()
        bucket = Bucket("attempts", f"{network}:{step}", FROM_ADDRESS)
        admission = await self._limiter.acquire(AcquireRequest((bucket,)))
        if not admission.admitted:
            raise too_many(admission.longest_wait.wait_seconds)
