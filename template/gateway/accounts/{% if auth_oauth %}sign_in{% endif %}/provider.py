"""What a provider is: it has an address to sign in at, and tells who signed in."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from authlib.oauth2.auth import ClientAuth  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import create_s256_code_challenge  # type: ignore[import-untyped]

from gateway.accounts.identities import Profile
from gateway.errors import Forbidden, ProviderError
from gateway.http.web import post_form


class Client(NamedTuple):
    """This service as a provider knows it."""

    id: str
    secret: str


class Attempt(NamedTuple):
    """A sign-in that has begun: what the provider has to answer to, and where to go then.

    `expires_at` is in seconds since 1970.
    """

    provider: str
    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    next: str
    expires_at: int


class Provider(Protocol):
    """A provider of identities."""

    name: str
    label: str

    async def address(self, attempt: Attempt) -> str:
        """The address to sign in at. Raises `ProviderError`."""

    async def profile(self, attempt: Attempt, code: str) -> Profile:
        """Who signed in. Raises `ProviderError`, and `Forbidden` without a verified e-mail."""


def authorization_address(
    endpoint: str, client: Client, attempt: Attempt, scope: str, **more: str
) -> str:
    """The address of the authorization code flow with PKCE (RFC 7636, S256)."""
    query = {
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": attempt.redirect_uri,
        "scope": scope,
        "state": attempt.state,
        "code_challenge": create_s256_code_challenge(attempt.verifier),
        "code_challenge_method": "S256",
        **more,
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


async def fetch_token(
    endpoint: str, client: Client, attempt: Attempt, code: str, *, in_body: bool
) -> Mapping[str, Any]:
    """The provider's answer to a code. Raises `ProviderError`; `Forbidden` for a refused code.

    `in_body`: the provider takes the client's secret in the body, else in the header.
    """
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": attempt.redirect_uri,
        "code_verifier": attempt.verifier,
    }
    how = "client_secret_post" if in_body else "client_secret_basic"
    auth = ClientAuth(client.id, client.secret, how if client.secret else "none")
    _, headers, body = auth.prepare("POST", endpoint, {}, urlencode(fields))
    answer = await post_form(endpoint, headers, body)
    if "error" in answer:
        raise Forbidden("The provider refused this sign-in. Start again.")
    if not isinstance(answer.get("access_token"), str):
        raise ProviderError("The provider's answer has no token. Try again later.")
    return answer
