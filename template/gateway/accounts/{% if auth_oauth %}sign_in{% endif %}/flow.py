"""The authorization code flow, from the first redirect to the provider's answer.

A sealed cookie of the browser keeps the state, the nonce and the verifier. An answer to another
browser, or one without a cookie, is refused.
"""

import base64
import binascii
import hmac
import secrets
import time
from collections.abc import Mapping

from pydantic_core import from_json, to_json

from gateway.accounts.sign_in.provider import Attempt, Provider
from gateway.errors import Forbidden, NotFound
from gateway.idempotency.sealing import Sealer

COOKIE = "sign_in"
LIFE_SECONDS = 600
# 43 characters, the fewest of a verifier (RFC 7636).
RANDOM_BYTES = 32


class Flow:
    """Begins sign-ins and recognises their answers."""

    def __init__(self, sealer: Sealer, providers: Mapping[str, Provider]) -> None:
        self._sealer = sealer
        self._providers = providers

    def provider(self, name: str) -> Provider:
        """The provider of an address. Raises `NotFound`."""
        if name not in self._providers:
            raise NotFound("This service has no such provider to sign in with.")
        return self._providers[name]

    async def begin(self, name: str, redirect_uri: str, target: str) -> tuple[str, str]:
        """The provider's address to sign in at, and the value of the cookie."""
        provider = self.provider(name)
        state, nonce, verifier = (secrets.token_urlsafe(RANDOM_BYTES) for _ in range(3))
        until = int(time.time()) + LIFE_SECONDS
        attempt = Attempt(name, state, nonce, verifier, redirect_uri, target, until)
        sealed = self._sealer.seal(to_json(attempt))
        return await provider.address(attempt), base64.urlsafe_b64encode(sealed).decode()

    def recognise(self, name: str, cookie: str | None, state: str) -> Attempt:
        """The sign-in that a browser began, for an answer with `state`. Raises `Forbidden`."""
        attempt = self._opened(cookie or "")
        if (
            attempt is None
            or attempt.provider != name
            or attempt.expires_at <= time.time()
            or not hmac.compare_digest(attempt.state.encode(), state.encode())
        ):
            raise Forbidden("This sign-in did not begin in this browser, or is over. Start again.")
        return attempt

    def _opened(self, cookie: str) -> Attempt | None:
        try:
            sealed = base64.b64decode(cookie, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        message = self._sealer.open(sealed)
        return Attempt(*from_json(message)) if message else None
