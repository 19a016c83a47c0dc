"""The log-in: API keys in the header, and identities of providers for browsers."""

from collections.abc import Mapping

from app.auth.api_key.authenticator import ApiKeyAuthenticator
from app.auth.oauth.flow import Flow
from app.auth.oauth.throttle import Throttle
from gateway.accounts.identities import Identities
from gateway.accounts.principals import Principal


class OAuthMethod:
    """Programs send API keys; `flow` and `identities` are for the routes of a browser's sign-in."""

    is_ambient = False

    def __init__(
        self, keys: ApiKeyAuthenticator, flow: Flow, identities: Identities, throttle: Throttle
    ) -> None:
        self.flow = flow
        self.identities = identities
        self.throttle = throttle
        self._keys = keys

    async def authenticate(self, authorization: str, address: str) -> Principal:
        return await self._keys.authenticate(authorization, address)

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        return await self._keys.sign_in(fields, address)

    async def log_out(self, authorization: str, *, everywhere: bool) -> None:
        """An API key stays."""

    async def with_key(self, key_id: str) -> Principal:
        return await self._keys.with_key(key_id)
