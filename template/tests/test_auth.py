"""Who is asking: whatever the way to log in, without a credential there is nothing."""

import base64
import re
from typing import Any

import httpx2
import pytest

from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.users import Users
from gateway.db.tables import users
from tests.support import Service, chat, error_of, hide_table

INVALID = (401, "invalid_credentials", None)


async def test_every_route_of_the_api_needs_a_credential(service: Service) -> None:
    client = service.client()
    described: dict[str, Any] = (await client.get("/openapi.json")).json()["paths"]
    asked = 0
    for path, methods in described.items():
        for method in methods:
            if path.startswith("/v1/"):
                response = await client.request(method, re.sub(r"\{\w+\}", "x", path))
                assert error_of(response) == INVALID, (method, path)
                assert response.headers["WWW-Authenticate"]
                assert response.headers["X-Request-ID"]
                asked += 1
    assert asked >= 10


async def test_the_description_says_how_to_log_in(service: Service) -> None:
    document = (await service.client().get("/openapi.json")).json()
    ((name, scheme),) = document["components"]["securitySchemes"].items()
    assert document["paths"]["/v1/me"]["get"]["security"] == [{name: []}]
    assert "security" not in document["paths"]["/livez"]["get"]
    challenge = (await service.client().get("/v1/me")).headers["WWW-Authenticate"]
    assert (scheme["type"], scheme["scheme"]) == ("http", challenge.split()[0].lower())


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Basic",
        "Basic Og==",
        "Basic ====",
        "Bearer ä",
        "Basic ä",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(b"jane@example.com\0:x").decode(),
        "Basic " + base64.b64encode(b"jane@example.com").decode(),
        "Bearer " + 5000 * "x",
        "Digest username=jane",
    ],
)
async def test_what_is_no_credential(service: Service, header: str) -> None:
    client = service.client()
    response = await client.get("/v1/me", headers={b"Authorization": header.encode()})
    assert error_of(response) == INVALID
    assert "Traceback" not in service.log


async def test_the_scheme_counts(service: Service) -> None:
    user = await service.create_user()
    scheme, _, credential = user.headers["Authorization"].partition(" ")
    client = service.client()
    for given, status in (
        (scheme, 200),
        (scheme.lower(), 200),
        (scheme.upper(), 200),
        (f"{scheme}x", 401),
        ("Token", 401),
    ):
        headers = {"Authorization": f"{given} {credential}"}
        assert (await client.get("/v1/me", headers=headers)).status_code == status, given


async def test_a_credential_elsewhere_is_none(service: Service) -> None:
    user = await service.create_user()
    value = user.headers["Authorization"]
    client = service.client()
    for headers in ({"X-API-Key": value}, {"Cookie": f"session={user.credential}"}):
        assert error_of(await client.get("/v1/me", headers=headers)) == INVALID
    # The routes take no such parameter, for any caller.
    response = await client.get("/v1/me", params={"api_key": user.credential, "token": value})
    assert response.status_code in {401, 422}


async def test_credentials_of_two_users_are_not_mixed_up(service: Service) -> None:
    for _ in range(2):
        user = await service.create_user()
        me = (await service.client(user).get("/v1/me")).json()
        assert (me["id"], me["email"]) == (user.id, user.email)


async def test_a_disabled_user_has_no_access_from_then_on(service: Service) -> None:
    user, other = await service.create_user(), await service.create_user()
    client = service.client(user)
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    await Users(service.database).change(user.id, command_line(), disabled=True)
    assert error_of(await client.get("/v1/me")) == INVALID
    assert error_of(await client.post("/v1/chat/completions", json=chat())) == INVALID
    assert (await service.client(other).get("/v1/me")).status_code == 200
    assert len(await service.rows(users)) == 2


async def test_role_and_plan_are_those_of_the_moment(service: Service) -> None:
    user = await service.create_user("many")
    client = service.client(user)
    assert (await client.get("/v1/me")).json()["role"] == "user"
    await Users(service.database).change(user.id, command_line(), role=Role.ADMIN, plan="few")
    me = (await client.get("/v1/me")).json()
    assert (me["role"], me["plan"]) == ("admin", "few")
    response = await client.post("/v1/chat/completions", json=chat())
    assert response.headers["x-ratelimit-limit-requests"] == "5"


async def test_an_auditor_reads_and_changes_nothing(service: Service) -> None:
    user = await service.create_user(role=Role.AUDITOR)
    client = service.client(user)
    assert (await client.get("/v1/predictions")).status_code == 200
    response = await client.post("/v1/chat/completions", json=chat())
    assert error_of(response) == (403, "forbidden", None)
    assert await service.rows_count() == 0


async def test_a_plan_that_is_gone_is_told(service: Service) -> None:
    user = await service.create_user()
    await Users(service.database).change(user.id, command_line(), plan="gone")
    response = await service.client(user).post("/v1/chat/completions", json=chat())
    assert error_of(response) == (403, "forbidden", None)
    assert "plans.toml" in response.json()["error"]["message"]
    assert await service.rows_count() == 0


async def test_credentials_and_addresses_are_not_logged(service: Service) -> None:
    user = await service.create_user()
    await service.client(user).post("/v1/chat/completions", json=chat())
    await service.client().get("/v1/me", headers={"Authorization": f"Bearer {user.credential}x"})
    assert len(service.access_events()) == 2
    for secret in (user.credential, user.headers["Authorization"], user.email):
        assert secret not in service.log
    assert user.id in service.log


async def test_when_users_cannot_be_read_nobody_is_let_in(
    client: httpx2.AsyncClient, admin_url: str
) -> None:
    assert (await client.get("/v1/me")).status_code == 200
    await hide_table(admin_url, "users")
    response = await client.get("/v1/me")
    assert error_of(response) == (503, "database_unavailable", None)
    assert int(response.headers["Retry-After"]) >= 1
