"""Supabase's tokens: what is accepted, which user they are, and when Supabase is down."""

import datetime as dt
import json
from typing import Any

import jwt
import pytest
from sqlalchemy import select

from app.auth import supabase as auth
from gateway.accounts import supabase_keys as keys
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.supabase_users import supabase_users
from gateway.accounts.users import Users
from gateway.db.tables import users, utc_now
from gateway.errors import StartError
from tests.fixtures.service import Run, Start
from tests.ports import kept_port
from tests.sign_in import form_of
from tests.supabase_stand_in import Signing, SupabaseStandIn
from tests.support import Service, User, chat, error_of

# Before the fixtures replace them.
CREATE_ACCESS, CREATE_CREDENTIAL = auth.create_access, auth.create_credential
WRONG = (401, "invalid_credentials", None)
EMAIL = "zoe@example.com"
MINUTE = dt.timedelta(minutes=1)
CLAIMS: dict[str, dict[str, Any]] = {
    "a service": {"role": "service_role"},
    "an anonymous account": {"is_anonymous": True},
    "the anonymous role": {"role": "anon"},
    "no role": {"role": None},
    "another issuer": {"iss": "https://evil.supabase.co/auth/v1"},
    "no issuer": {"iss": None},
    "another audience": {"aud": "another"},
    "no audience": {"aud": None},
    "expired": {"exp": utc_now() - MINUTE},
    "no expiry": {"exp": None},
    "not yet valid": {"nbf": utc_now() + dt.timedelta(hours=1)},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a long subject": {"sub": "x" * 65},
}


async def status(service: Service, token: str) -> tuple[int, Any]:
    answer = await service.client(Authorization=f"Bearer {token}").get("/v1/me")
    return answer.status_code, answer.json()


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
async def test_a_token_is_accepted(
    service: Service, supabase: SupabaseStandIn, user: User, algorithm: str
) -> None:
    supabase.keys = [Signing(algorithm), Signing()]
    client = service.client(Authorization=f"Bearer {supabase.token(user.email)}")
    assert (await client.get("/v1/me")).json()["id"] == user.id
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    assert supabase.read == 1


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS)
async def test_wrong_claims(
    service: Service, supabase: SupabaseStandIn, user: User, claims: dict[str, Any]
) -> None:
    token = supabase.token(user.email, **claims)
    answer = await service.client(Authorization=f"Bearer {token}").get("/v1/me")
    assert error_of(answer) == WRONG


async def test_wrong_keys_and_algorithms(
    service: Service, supabase: SupabaseStandIn, user: User
) -> None:
    right, other = supabase.keys[0], Signing()
    claims = supabase.claims(user.email)
    public = str(right.published["x"])
    same_id = Signing()
    same_id.key_id = right.key_id
    for token in (
        supabase.token(user.email, other),
        supabase.token(user.email, same_id),
        jwt.encode(claims, "", "none", headers={"kid": right.key_id}),
        jwt.encode(claims, public * 2, "HS256", headers={"kid": right.key_id}),
        jwt.encode(claims, right.key, "ES256"),
        supabase.token(user.email)[:-4],
        "a.b.c",
        ".",
        "x" * 43,
    ):
        answer = await service.client(Authorization=f"Bearer {token}").get("/v1/me")
        assert error_of(answer) == WRONG, token


async def test_a_shared_secret_in_the_key_set_is_no_key(
    service: Service, supabase: SupabaseStandIn, user: User
) -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256", "kid": "shared"}
    kept = supabase.keys[0]
    assert keys._parse({"keys": [secret, {"kty": "nonsense"}, 3, kept.published]}).keys() == {
        kept.key_id
    }
    assert not keys._parse([])


async def test_an_account_gets_a_user_at_first_sight(
    start: Start, supabase: SupabaseStandIn
) -> None:
    service = await start(registration="open")
    for _ in range(2):
        code, me = await status(service, supabase.token(EMAIL))
        assert (code, me["email"], me["role"], me["plan"]) == (200, EMAIL, "user", "one")
    (row,) = await service.rows(users)
    assert me["id"] == row.id


async def test_without_a_role_an_account_is_not_admitted(
    service: Service, supabase: SupabaseStandIn
) -> None:
    answer = await service.client(Authorization=f"Bearer {supabase.token(EMAIL)}").get("/v1/me")
    assert error_of(answer) == (403, "forbidden", None)
    # The user writes this one.
    token = supabase.token(EMAIL, user_metadata={"role": "admin"})
    assert (await status(service, token))[0] == 403
    assert not await service.rows(users)
    code, me = await status(service, supabase.token(EMAIL, role_here="auditor"))
    assert (code, me["role"]) == (200, "auditor")


async def test_an_account_is_never_linked_by_its_address(
    start: Start, supabase: SupabaseStandIn
) -> None:
    service = await start(registration="open")
    user = await service.create_user(email=EMAIL)
    code, me = await status(service, supabase.token(EMAIL, sub="another"))
    assert (code, me["email"]) == (200, "another@supabase.invalid")
    assert me["id"] != user.id
    code, nameless = await status(service, supabase.token("", sub="by-phone", email=""))
    assert (code, nameless["email"]) == (200, "by-phone@supabase.invalid")


async def test_the_more_restrictive_role_counts_once_one_is_set_here(
    service: Service, supabase: SupabaseStandIn
) -> None:
    async def role(here: str | None) -> str:
        _, me = await status(service, supabase.token(EMAIL, role_here=here))
        return str(me["role"])

    assert [await role(here) for here in ("user", "admin", None, "auditor", "admin")] == [
        *("user", "admin", "admin", "auditor", "admin"),
    ]
    await service.create_user(role=Role.ADMIN)
    found = await Users(service.database).find(EMAIL)
    await Users(service.database).change(found.id, command_line(), role=Role.AUDITOR)
    assert [await role(here) for here in ("admin", None, "user")] == ["auditor", "auditor", "user"]


async def test_a_disabled_user_is_out(
    service: Service, supabase: SupabaseStandIn, user: User
) -> None:
    token = supabase.token(user.email)
    assert (await status(service, token))[0] == 200
    await Users(service.database).change(user.id, command_line(), disabled=True)
    assert (await status(service, token))[0] == 401
    assert len(await service.database.fetch(select(supabase_users))) == 1


async def test_a_rotation_of_keys_and_made_up_ids(
    service: Service, supabase: SupabaseStandIn, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await status(service, supabase.token(user.email)))[0] == 200
    newer = Signing()
    supabase.keys = [newer, *supabase.keys]
    # The key set was just read: unknown ids do not have it read at will.
    for signing in [Signing() for _ in range(5)]:
        assert (await status(service, supabase.token(user.email, signing)))[0] == 401
    assert supabase.read == 1
    monkeypatch.setattr(keys, "PAUSE_SECONDS", 0)
    assert (await status(service, supabase.token(user.email)))[0] == 200
    assert supabase.read == 2


async def test_known_keys_serve_while_supabase_is_down(
    service: Service, supabase: SupabaseStandIn, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = supabase.token(user.email)
    assert (await status(service, token))[0] == 200
    supabase.is_down = True
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0)
    for _ in range(3):
        assert (await status(service, token))[0] == 200


async def test_without_a_key_supabase_is_missed(start: Start, supabase: SupabaseStandIn) -> None:
    with kept_port() as port:
        service = await start(supabase_url=f"http://127.0.0.1:{port}")
        client = service.client(Authorization=f"Bearer {supabase.token(EMAIL)}")
        assert error_of(await client.get("/v1/me")) == (502, "provider_error", None)


async def test_a_browser_signs_in_with_a_password(
    service: Service, supabase: SupabaseStandIn, user: User
) -> None:
    browser = service.client()
    wrong = await browser.post("/auth/session", data={**form_of(user), "password": "wrong"})
    assert wrong.status_code == 401
    answer = await browser.post("/auth/session", data=form_of(user))
    assert answer.status_code == 303
    assert (await browser.get("/v1/me")).json()["id"] == user.id
    assert supabase.asked[-1] == {"email": user.email, "password": user.credential}
    assert user.credential not in service.log


async def test_without_a_publishable_key_no_browser_signs_in(start: Start) -> None:
    service = await start(supabase_publishable_key="")
    form = {"email": EMAIL, "password": "x"}
    answer = await service.client().post("/auth/session", data=form)
    assert answer.status_code == 403
    assert "SUPABASE_PUBLISHABLE_KEY" in answer.text


async def test_the_command_line_says_where_people_sign_in(
    service: Service, monkeypatch: pytest.MonkeyPatch, supabase: SupabaseStandIn, run: Run
) -> None:
    monkeypatch.setattr(auth, "create_credential", CREATE_CREDENTIAL)
    result = await run("users", "create", "--email", EMAIL, "--plan", "few", "--json")
    assert json.loads(result.stdout)["credential"] is None
    shown = await run("users", "create", "--email", "y@example.com", "--plan", "few")
    assert "people sign in with Supabase" in shown.stdout


async def test_a_program_of_this_machine_has_access_for_minutes(
    service: Service, user: User
) -> None:
    settings, database = service.settings, service.database
    token = await CREATE_ACCESS(settings, database, user.id, command_line())
    assert (await status(service, token))[1]["id"] == user.id
    past = utc_now() - MINUTE
    expired = await CREATE_ACCESS(settings, database, user.id, command_line(), past)
    assert (await status(service, expired))[0] == 401


async def test_production_needs_the_address_of_supabase(service: Service) -> None:
    lacking = service.settings.model_copy(update={"environment": "production", "supabase_url": ""})
    with pytest.raises(StartError, match="SUPABASE_URL"):
        auth.open_authenticator(lacking, service.database, service.engine.limiter)
