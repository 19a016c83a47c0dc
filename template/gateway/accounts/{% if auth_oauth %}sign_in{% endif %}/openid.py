"""OpenID Connect: a signed id_token tells who signed in.

https://openid.net/specs/openid-connect-core-1_0.html#CodeFlowAuth
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any

from authlib.oidc.core import CodeIDToken  # type: ignore[import-untyped]
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from gateway.accounts.admission import domain_of
from gateway.accounts.identities import Profile
from gateway.accounts.sign_in.provider import Attempt, Client, authorization_address, fetch_token
from gateway.addresses import is_web_address
from gateway.errors import Forbidden, ProviderError
from gateway.http.web import get_json

# Google's tokens may name it without the scheme, as its documentation says.
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
SCOPE = "openid email"
# Signatures by the issuer's private key: never `none`, and never one with a shared secret.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]
SIGNED = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
LEEWAY_SECONDS = 60
KEPT_SECONDS = 600.0
# An unknown key is looked for again after this: a forged token causes no request each.
AGAIN_SECONDS = 10.0
# A read that failed is repeated after this: with the issuer down, log-ins cause no request each.
FAILURE_SECONDS = 30.0
ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class Documents:
    """The endpoints and keys of an issuer, cached for `KEPT_SECONDS`.

    A failure to read them is cached for `FAILURE_SECONDS`.
    """

    def __init__(self, issuer: str) -> None:
        self._issuer = issuer
        self._lock = asyncio.Lock()
        self._metadata: Mapping[str, Any] = {}
        self._keys = KeySet([])
        self._read_at = float("-inf")
        self._failure = ""
        self._failed_at = float("-inf")

    async def metadata(self) -> Mapping[str, Any]:
        """The endpoints. Raises `ProviderError`."""
        await self._refresh(KEPT_SECONDS)
        return self._metadata

    async def keys(self, *, again: bool = False) -> KeySet:
        """The public keys; `again` for a key that is not among them. Raises `ProviderError`."""
        await self._refresh(AGAIN_SECONDS if again else KEPT_SECONDS)
        return self._keys

    async def _refresh(self, seconds: float) -> None:
        async with self._lock:
            now = time.monotonic()
            if now - self._read_at < seconds:
                return
            if now - self._failed_at < FAILURE_SECONDS:
                raise ProviderError(self._failure)
            try:
                await self._read()
            except ProviderError as error:
                self._failure, self._failed_at = error.message, time.monotonic()
                raise

    async def _read(self) -> None:
        address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = await get_json(address)
        _require_metadata(metadata, self._issuer)
        try:
            self._keys = KeySet.import_key_set(await get_json(metadata["jwks_uri"]))
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderError("The issuer's keys cannot be read. Try later.") from error
        self._metadata, self._read_at = metadata, time.monotonic()


class OpenId:
    """An issuer. The first of `issuers` is its address, all may stand in its tokens."""

    def __init__(
        self,
        name: str,
        label: str,
        issuers: Sequence[str],
        client: Client,
        *,
        is_google: bool = False,
    ) -> None:
        self.name = name
        self.label = label
        self._issuers = issuers
        self._client = client
        self._is_google = is_google
        self._documents = Documents(issuers[0])

    async def address(self, attempt: Attempt) -> str:
        metadata = await self._documents.metadata()
        endpoint = metadata["authorization_endpoint"]
        return authorization_address(endpoint, self._client, attempt, SCOPE, nonce=attempt.nonce)

    async def profile(self, attempt: Attempt, code: str) -> Profile:
        metadata = await self._documents.metadata()
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        in_body = "client_secret_basic" not in methods
        endpoint = metadata["token_endpoint"]
        answer = await fetch_token(endpoint, self._client, attempt, code, in_body=in_body)
        claims = await self._claims(answer, attempt.nonce)
        if "email" not in claims:
            claims = {**await self._user_info(metadata, answer, claims["sub"]), **claims}
        if not isinstance(claims.get("email"), str) or not _is_true(claims.get("email_verified")):
            raise Forbidden(f"{self.label} knows no verified e-mail address of yours.")
        domain = self._domain(claims)
        return Profile(self._issuers[0], claims["sub"], claims["email"], domain, frozenset())

    def _domain(self, claims: Mapping[str, Any]) -> str:
        """The domain of the address; of a Google account, that of its Workspace (`hd`).

        A consumer account of Google may have a verified address of any domain.
        https://developers.google.com/identity/openid-connect/openid-connect#id_token-hd
        """
        if not self._is_google:
            return domain_of(claims["email"])
        domain = claims.get("hd")
        return domain if isinstance(domain, str) else ""

    async def _claims(self, answer: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """The claims of a valid id_token. Raises `Forbidden`."""
        given = answer.get("id_token")
        try:
            token = await self._decode(given if isinstance(given, str) else "")
            options = {
                "iss": {"essential": True, "values": list(self._issuers)},
                "aud": {"essential": True, "value": self._client.id},
                "nonce": {"essential": True, "value": nonce},
            }
            expected = {
                "nonce": nonce,
                "client_id": self._client.id,
                "access_token": answer["access_token"],
            }
            claims = CodeIDToken(token.claims, token.header, options, expected)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError) as error:
            raise Forbidden("The provider's token is not valid. Start again.") from error
        if not isinstance(claims["sub"], str) or not 0 < len(claims["sub"]) <= 255:
            raise Forbidden("The provider's token names no account.")
        return dict(claims)

    async def _decode(self, text: str) -> jwt.Token:
        try:
            return jwt.decode(text, await self._documents.keys(), registry=SIGNED)
        except InvalidKeyIdError:
            return jwt.decode(text, await self._documents.keys(again=True), registry=SIGNED)

    async def _user_info(
        self, metadata: Mapping[str, Any], answer: Mapping[str, Any], subject: str
    ) -> Mapping[str, Any]:
        """The claims at the issuer's endpoint, which are about the token's subject."""
        if not isinstance(metadata.get("userinfo_endpoint"), str):
            return {}
        found = await get_json(metadata["userinfo_endpoint"], answer["access_token"])
        same = isinstance(found, dict) and found.get("sub") == subject
        return found if same else {}


def _require_metadata(metadata: Any, issuer: str) -> None:
    """Raise `ProviderError` unless the document is this issuer's own (OpenID Discovery, 4.3)."""
    is_own = isinstance(metadata, dict) and metadata.get("issuer") == issuer
    found = [metadata.get(name) for name in ENDPOINTS] if is_own else [None]
    if not all(isinstance(each, str) and is_web_address(each, plain=False) for each in found):
        raise ProviderError(
            "The issuer's /.well-known/openid-configuration is not that of OAUTH_OIDC_ISSUER."
        )


def _is_true(given: Any) -> bool:
    """Some providers write the claim as text."""
    return given is True or given == "true"
