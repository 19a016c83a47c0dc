"""What a provider says about a person, and what of it is believed."""

import asyncio
import hmac
from base64 import urlsafe_b64encode
from functools import partial
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from gateway.accounts.sign_in import openid
from gateway.db.tables import users
from gateway.errors import ProviderError
from gateway.http.web import get_json
from gateway.json_text import encode
from tests.fixtures.oauth import signed_in_with
from tests.fixtures.service import Start
from tests.oauth_stand_in import CLIENT_ID, CLIENT_SECRET, StandIn, github_email
from tests.support import Service
from tests.upstream import answering

# In seconds since 1970.
LONG_AGO, FAR_OFF = 1_000_000_000, 10_000_000_000
FIRST = github_email("first@example.com", primary=False)


async def _status(service: Service, name: str) -> int:
    browser, answer = await signed_in_with(service, name)
    assert (answer.status_code == 303) == ("session" in browser.cookies)
    return answer.status_code


@pytest.mark.parametrize(
    "emails",
    [
        [],
        [FIRST],
        [github_email("victim@example.com", verified=False)],
        [github_email("victim@example.com", verified="true")],
        [github_email("victim@example.com", verified=1)],
        [github_email("victim@example.com", primary=False), FIRST],
        [github_email(None)],  # type: ignore[arg-type]
        ["victim@example.com"],
    ],
)
async def test_of_github_only_the_primary_and_verified_address_counts(
    oauth: Service, stand_in: StandIn, emails: list[Any]
) -> None:
    stand_in.emails = emails
    assert await _status(oauth, "github") == 403
    assert await oauth.rows(users) == []


async def test_the_address_of_githubs_profile_is_not_read(
    oauth: Service, stand_in: StandIn
) -> None:
    """Its owner writes there what they like."""
    stand_in.user["email"] = "victim@example.com"
    stand_in.emails = [FIRST, github_email("me@example.com")]
    browser, _ = await signed_in_with(oauth, "github")
    assert (await browser.get("/v1/me")).json()["email"] == "me@example.com"


@pytest.mark.parametrize("user", [{}, {"id": None}, {"id": "1"}, [], {"login": "octocat"}])
async def test_github_without_an_account_is_a_failure(
    oauth: Service, stand_in: StandIn, user: Any
) -> None:
    stand_in.user = user
    assert await _status(oauth, "github") == 502


async def test_an_answer_that_is_nested_too_deeply_is_a_failure() -> None:
    async with answering(lambda _: b"[" * 20_000) as url:
        with pytest.raises(ProviderError):
            await get_json(url)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "another-service"},
        {"aud": None},
        {"aud": [CLIENT_ID, "another-service"]},
        {"aud": [CLIENT_ID, "another-service"], "azp": "another-service"},
        {"azp": "another-service"},
        {"exp": LONG_AGO},
        {"exp": None},
        {"exp": "never"},
        {"nbf": FAR_OFF},
        {"iat": None},
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": ""},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
        {"at_hash": "another"},
        {"email": "victim@example.com", "email_verified": False},
        {"email": "victim@example.com", "email_verified": None},
        {"email": "victim@example.com", "email_verified": "false"},
        {"email": "victim@example.com", "email_verified": 1},
        {"email": ["victim@example.com"]},
        {"email": None},
    ],
    ids=str,
)
async def test_a_token_that_is_not_for_this_sign_in_is_refused(
    oauth: Service, stand_in: StandIn, claims: dict[str, Any]
) -> None:
    stand_in.claims = claims
    assert await _status(oauth, "oidc") == 403
    assert await oauth.rows(users) == []


@pytest.mark.parametrize("claims", [{"email_verified": "true"}, {"aud": [CLIENT_ID]}], ids=str)
async def test_a_claim_may_have_another_shape(
    oauth: Service, stand_in: StandIn, claims: dict[str, Any]
) -> None:
    stand_in.claims = claims
    assert await _status(oauth, "oidc") == 303


async def test_google_may_be_named_without_its_scheme(oauth: Service, stand_in: StandIn) -> None:
    stand_in.claims = {"iss": "accounts.google.com"}
    assert await _status(oauth, "google") == 303
    assert await _status(oauth, "oidc") == 403


async def test_another_key_signs_nothing(oauth: Service, stand_in: StandIn) -> None:
    stand_in.signer = RSAKey.generate_key(2048, {"kid": "first"})
    assert await _status(oauth, "oidc") == 403


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
async def test_no_algorithm_but_a_signature_with_the_issuers_key(
    oauth: Service, stand_in: StandIn, algorithm: str
) -> None:
    """A public key and the client's secret are known to others: neither signs."""
    for secret in (CLIENT_SECRET.encode(), stand_in.key.as_pem(private=False)):
        stand_in.forge = partial(_forged, algorithm, secret)
        assert await _status(oauth, "oidc") == 403


def _forged(algorithm: str, secret: bytes, token: str) -> str:
    """The claims of a token with another signature."""
    header = encode({"alg": algorithm, "kid": "first", "typ": "JWT"})
    message = f"{urlsafe_b64encode(header).decode().rstrip('=')}.{token.split('.')[1]}"
    signature = hmac.digest(secret, message.encode(), "sha256") if algorithm == "HS256" else b""
    return f"{message}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


async def test_no_token_is_no_sign_in(oauth: Service, stand_in: StandIn) -> None:
    for token in ({}, {"id_token": 7}, {"id_token": "x.y.z"}, {"id_token": ""}):
        stand_in.token_answer = {"access_token": "x", **token}
        assert await _status(oauth, "oidc") == 403


async def test_a_new_key_of_the_issuer_is_found(
    oauth: Service, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _status(oauth, "oidc") == 303
    stand_in.key = RSAKey.generate_key(2048, {"kid": "second"})
    stand_in.header = {"kid": "second"}
    # A forged name of a key does not make the service ask each time.
    asked = stand_in.requests.count("/jwks")
    assert await _status(oauth, "oidc") == 403
    assert stand_in.requests.count("/jwks") == asked
    monkeypatch.setattr(openid, "AGAIN_SECONDS", 0.0)
    assert await _status(oauth, "oidc") == 303
    assert stand_in.requests.count("/jwks") == asked + 1


async def test_the_issuers_documents_are_read_once(oauth: Service, stand_in: StandIn) -> None:
    for _ in range(2):
        assert await _status(oauth, "oidc") == 303
    assert stand_in.requests.count("/.well-known/openid-configuration") == 1


@pytest.mark.parametrize(
    ("failure", "requests"),
    [
        ({"issuer": "https://evil.example"}, ["/.well-known/openid-configuration"]),
        ({"jwks_uri": "/no-keys"}, ["/.well-known/openid-configuration", "/no-keys"]),
    ],
)
async def test_a_failed_read_of_the_issuers_documents_is_not_repeated_at_once(
    oauth: Service,
    stand_in: StandIn,
    monkeypatch: pytest.MonkeyPatch,
    failure: dict[str, str],
    requests: list[str],
) -> None:
    jwks = failure.get("jwks_uri")
    stand_in.metadata = {"jwks_uri": stand_in.url + jwks} if jwks else failure
    browsers = [oauth.client() for _ in range(5)]
    answers = await asyncio.gather(*(each.get("/auth/login/oidc") for each in browsers))
    assert {answer.status_code for answer in answers} == {502}
    alerts = {answer.text.partition('role="alert">')[2].partition("<")[0] for answer in answers}
    assert len(alerts) == 1
    assert alerts != {""}
    assert stand_in.requests == requests
    stand_in.metadata = {}
    assert (await oauth.client().get("/auth/login/oidc")).status_code == 502
    assert stand_in.requests == requests
    monkeypatch.setattr(openid, "FAILURE_SECONDS", 0.0)
    assert await _status(oauth, "oidc") == 303


async def test_a_failed_read_for_an_unknown_key_leaves_the_known_keys(
    oauth: Service, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await _status(oauth, "oidc") == 303
    monkeypatch.setattr(openid, "AGAIN_SECONDS", 0.0)
    stand_in.metadata = {"issuer": "https://evil.example"}
    stand_in.header = {"kid": "forged"}
    asked = stand_in.requests.count("/.well-known/openid-configuration")
    for _ in range(2):
        assert await _status(oauth, "oidc") == 502
    assert stand_in.requests.count("/.well-known/openid-configuration") == asked + 1
    stand_in.header = {}
    assert await _status(oauth, "oidc") == 303


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": None},
        {"jwks_uri": 7},
        {"authorization_endpoint": ""},
    ],
)
async def test_the_documents_of_another_issuer_are_not_believed(
    oauth: Service, stand_in: StandIn, metadata: dict[str, Any]
) -> None:
    stand_in.metadata = metadata
    assert (await oauth.client().get("/auth/login/oidc")).status_code == 502


async def test_an_address_may_come_from_the_issuers_endpoint(
    oauth: Service, stand_in: StandIn
) -> None:
    stand_in.claims = {"email": None, "email_verified": None, "sub": "7"}
    stand_in.user_info = {"sub": "8", "email": "jane@example.com", "email_verified": True}
    assert await _status(oauth, "oidc") == 403
    stand_in.user_info["sub"] = "7"
    assert await _status(oauth, "oidc") == 303


async def test_the_secret_goes_where_the_issuer_takes_it(oauth: Service, stand_in: StandIn) -> None:
    stand_in.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    assert await _status(oauth, "oidc") == 303


async def test_a_member_of_an_organisation_is_admitted(
    start: Start, stand_in: StandIn, clients: dict[str, Any]
) -> None:
    service = await start(**clients | {"oauth_allowed": "github:acme,github:Other"})
    for state, status in ((None, 403), ("pending", 403), ("active", 303)):
        stand_in.organisations = {"acme": state} if state else {"elsewhere": "active"}
        assert await _status(service, "github") == status
    assert "read:org" in stand_in.asked[0]["scope"]
