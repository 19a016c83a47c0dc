"""Forged and foreign access tokens: only what this service signed, as it stands, is accepted."""

import base64
import datetime as dt
import json
import secrets
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select

from app.auth.jwt import open_key_ring
from gateway.accounts.links import Purpose
from gateway.accounts.logins import logins
from gateway.accounts.tokens import ACCESS, KeyRing
from gateway.db.tables import utc_now
from gateway.signing import derive
from tests.support import SECRET_KEY, Service, User, error_of

WRONG = (401, "invalid_credentials", None)
KEY = derive("tokens", SECRET_KEY)
MINUTE, DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)
# The changed claims, or headers, of an otherwise right token. None removes the claim.
CLAIMS: dict[str, Any] = {
    "another issuer": {"iss": "https://evil.example"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "another"},
    "no audience": {"aud": None},
    "expired": {"exp": utc_now() - MINUTE},
    "no expiry": {"exp": None},
    "an expiry that is no number": {"exp": "never"},
    "not yet valid": {"nbf": utc_now() + DAY},
    "issued in the future": {"iat": utc_now() + DAY},
    "no issue": {"iat": None},
    "another user": {"sub": "usr_" + 32 * "0"},
    "no user": {"sub": None},
    "no id": {"jti": None},
    "another log-in": {"sid": "lgn_" + 32 * "0"},
    "no log-in": {"sid": None},
    "a log-in that is no text": {"sid": ["x"]},
}
HEADERS: dict[str, Any] = {
    "another type": {"typ": "JWT"},
    "no type": {"typ": None},
    "the type of a link": {"typ": "reset+jwt"},
    "another key": {"kid": "0" * 16},
    "no key": {"kid": None},
    "a key that is no text": {"kid": ["x"]},
    "a key from elsewhere": {"jku": "https://evil.example/jwks.json", "kid": "evil"},
    "what must be understood": {"crit": ["exp"]},
}


@pytest.fixture
async def right(service: Service, user: User) -> dict[str, Any]:
    """The header and the claims of a right token."""
    (row,) = await service.database.fetch(select(logins))
    ring = open_key_ring(service.settings)
    token = ring.access_token(user.id, row.id)
    header = jwt.get_unverified_header(token)
    return {"header": header, "claims": ring.read(ACCESS, token)}


def signed(
    right: Mapping[str, Any],
    claims: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    key: Any = KEY,
    algorithm: str | None = "HS256",
) -> str:
    """A token with a right signature by `key`."""
    claims = {**right["claims"], **(claims or {})}
    times = {name: int(at.timestamp()) for name, at in claims.items() if hasattr(at, "timestamp")}
    headers = {**right["header"], **(headers or {}), "alg": algorithm or "none"}
    text = f"{_encoded(headers)}.{_encoded({**claims, **times})}"
    signature = jwt.get_algorithm_by_name(algorithm or "none").sign(text.encode(), key)
    return f"{text}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def _encoded(values: Mapping[str, Any]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return base64.urlsafe_b64encode(json.dumps(given).encode()).rstrip(b"=").decode()


async def refused(service: Service, token: str) -> bool:
    answer = await service.client(Authorization=f"Bearer {token}").get("/v1/me")
    return error_of(answer) == WRONG


async def test_the_forged_tokens_would_be_right_otherwise(
    service: Service, right: dict[str, Any]
) -> None:
    client = service.client(Authorization=f"Bearer {signed(right)}")
    assert (await client.get("/v1/me")).status_code == 200


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
async def test_wrong_claims(
    service: Service, right: dict[str, Any], claims: dict[str, Any]
) -> None:
    assert await refused(service, signed(right, claims))


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
async def test_wrong_headers(
    service: Service, right: dict[str, Any], headers: dict[str, Any]
) -> None:
    assert await refused(service, signed(right, headers=headers))


async def test_wrong_algorithms(service: Service, right: dict[str, Any]) -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    for algorithm, key in (("none", None), ("HS384", KEY), ("HS512", KEY), ("ES256", private)):
        assert await refused(service, signed(right, key=key, algorithm=algorithm)), algorithm
    head, body, _ = signed(right).split(".")
    for name in ("none", "None", "nOnE", ""):
        header = {**right["header"], "alg": name}
        unsigned = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
        for signature in ("", "x", "e30"):
            assert await refused(service, f"{unsigned}.{body}.{signature}")
    assert await refused(service, f"{head}.{body}.")


async def test_other_keys(service: Service, right: dict[str, Any]) -> None:
    for key in (SECRET_KEY.encode(), secrets.token_bytes(32), derive("idempotency", SECRET_KEY)):
        assert await refused(service, signed(right, key=key))


async def test_a_changed_token(service: Service, right: dict[str, Any], user: User) -> None:
    head, body, signature = signed(right).split(".")
    claims = json.dumps({**right["claims"], "role": "admin"}).encode()
    richer = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
    for token in (
        f"{head}.{richer}.{signature}",
        f"{head}.{body}.{signature[:-2]}",
        f"{head}.{body}",
        f"{head}.{body}.{signature}.x",
        f".{body}.{signature}",
        f"{head}..{signature}",
        "a.b.c",
        f"{head}.{body}.{signature}" + "A" * 5000,
    ):
        assert await refused(service, token)


async def test_the_tokens_of_links_and_of_other_services(service: Service, user: User) -> None:
    (row,) = await service.database.fetch(select(logins))
    ring = open_key_ring(service.settings)
    for purpose in Purpose:
        token = ring.sign(f"{purpose}+jwt", user.id, utc_now() + MINUTE, sid=row.id)
        assert await refused(service, token)
    other = KeyRing("another service", "another service", SECRET_KEY)
    assert await refused(service, other.access_token(user.id, row.id))
