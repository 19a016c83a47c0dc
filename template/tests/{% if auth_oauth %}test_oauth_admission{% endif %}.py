"""Which accounts make a user, and which user an account is."""

import asyncio
from typing import Any

import pytest

from gateway.accounts import identities as accounts
from gateway.accounts.admission import domain_of, parse_allowed
from gateway.accounts.audit import command_line
from gateway.accounts.identities import identities
from gateway.accounts.users import Users
from gateway.db.tables import audit, sessions, users
from tests.fixtures.oauth import follow, signed_in_with
from tests.fixtures.service import Start
from tests.oauth_stand_in import StandIn, github_email
from tests.support import Service


async def _me(service: Service, name: str) -> dict[str, Any] | None:
    """Who signs in with a provider; None if nobody does."""
    browser, answer = await signed_in_with(service, name)
    if answer.status_code != 303:
        assert answer.status_code in {403, 409}
        return None
    me: dict[str, Any] = (await browser.get("/v1/me")).json()
    return me


async def test_without_a_list_only_users_that_an_administrator_made_sign_in(
    start: Start, clients: dict[str, Any]
) -> None:
    service = await start(**clients | {"oauth_allowed": ""})
    assert await _me(service, "oidc") is None
    assert await service.rows(users) == []
    user = await service.create_user(email="jane@example.com")
    for _ in range(2):
        me = await _me(service, "oidc")
        assert me is not None
        assert me["id"] == user.id


async def test_an_account_of_the_list_makes_a_user_once(oauth: Service) -> None:
    first, second = await _me(oauth, "oidc"), await _me(oauth, "oidc")
    assert first
    assert first == second
    assert first["role"] == "user"
    (row,) = await oauth.rows(identities)
    assert (row.user_id, row.subject) == (first["id"], "110169484474386276334")
    entries = [entry for entry in await oauth.rows(audit) if "session" not in entry.target]
    assert [entry.action for entry in entries] == ["create", "link"]
    assert {entry.actor_id for entry in entries} == {first["id"]}
    assert "jane@" not in str([entry._asdict() for entry in entries])


async def test_anyone_signs_in_where_registration_is_open(
    start: Start, clients: dict[str, Any]
) -> None:
    service = await start(**clients | {"oauth_allowed": "", "registration": "open"})
    assert await _me(service, "oidc")


async def test_who_leaves_the_list_is_out_unless_an_administrator_made_them(
    start: Start, clients: dict[str, Any]
) -> None:
    service = await start(**clients)
    await service.create_user(email="jane@example.com")
    for name in ("github", "oidc"):
        assert await _me(service, name)
    await service.stop()
    service = await start(**clients | {"oauth_allowed": "elsewhere.example"})
    assert await _me(service, "github") is None
    assert await _me(service, "oidc")


@pytest.mark.parametrize(
    ("domain", "is_admitted"),
    [
        ("example.com", True),
        ("Example.com", True),
        (None, False),
        ("", False),
        ("evil.example", False),
        (["example.com"], False),
    ],
)
@pytest.mark.parametrize("name", ["google", "oidc"])
async def test_a_domain_admits_of_googles_accounts_those_of_its_workspace(
    start: Start,
    stand_in: StandIn,
    clients: dict[str, Any],
    name: str,
    domain: Any,
    is_admitted: bool,
) -> None:
    """A consumer account may have an address of any domain, also where Google is the issuer."""
    service = await start(**clients | {"oauth_oidc_issuer": stand_in.google})
    stand_in.claims = {"hd": domain}
    assert (await _me(service, name) is not None) is is_admitted
    assert len(await service.rows(users)) == is_admitted


async def test_an_address_admits_a_consumer_account_of_google(
    start: Start, stand_in: StandIn, clients: dict[str, Any]
) -> None:
    service = await start(**clients | {"oauth_allowed": "jane@example.com"})
    stand_in.claims = {"hd": None}
    assert await _me(service, "google")


async def test_a_consumer_account_that_a_domain_admitted_is_out(
    oauth: Service, stand_in: StandIn
) -> None:
    assert await _me(oauth, "google")
    stand_in.claims = {"hd": None}
    assert await _me(oauth, "google") is None


async def test_an_account_is_known_by_its_subject_and_not_by_its_address(
    oauth: Service, stand_in: StandIn
) -> None:
    me = await _me(oauth, "oidc")
    stand_in.claims = {"email": "renamed@example.com"}
    again = await _me(oauth, "oidc")
    assert me
    assert again == me


async def test_another_account_with_the_same_address_is_not_the_user(
    oauth: Service, stand_in: StandIn
) -> None:
    """Neither another one of the same provider nor one of another provider."""
    me = await _me(oauth, "oidc")
    stand_in.claims = {"sub": "another"}
    assert await _me(oauth, "oidc") is None
    stand_in.emails = [github_email("jane@example.com")]
    assert await _me(oauth, "github") is None
    assert me
    assert len(await oauth.rows(users)) == len(await oauth.rows(identities)) == 1


async def test_the_same_subject_of_another_provider_is_another_account(
    oauth: Service, stand_in: StandIn
) -> None:
    stand_in.claims = {"sub": str(stand_in.user["id"])}
    first, second = await _me(oauth, "oidc"), await _me(oauth, "github")
    assert first
    assert second
    assert first["id"] != second["id"]


@pytest.mark.parametrize("email", ["jane@K.example.com", "no address", "a:b@example.com", ""])
async def test_an_address_that_becomes_another_one_is_refused(
    start: Start, stand_in: StandIn, clients: dict[str, Any], email: str
) -> None:
    """The first has the Kelvin sign, whose lower case is the letter k."""
    service = await start(**clients | {"registration": "open"})
    await service.create_user(email="jane@k.example.com")
    stand_in.claims = {"email": email.replace("K", "\u212a")}
    _, answer = await signed_in_with(service, "oidc")
    assert answer.status_code in {403, 422}
    assert await service.rows(identities) == []


async def test_a_disabled_user_does_not_sign_in(oauth: Service) -> None:
    user = await oauth.create_user(email="octocat@example.com")
    me = await _me(oauth, "oidc")
    assert me
    for user_id in (me["id"], user.id):
        await Users(oauth.database).change(user_id, command_line(), disabled=True)
    for name in ("oidc", "github"):
        assert await _me(oauth, name) is None
    assert await oauth.rows(sessions) == []


async def test_two_first_sign_ins_at_once_make_one_user(oauth: Service) -> None:
    browsers = [oauth.client() for _ in range(4)]
    addresses = [await follow(oauth, browser, "oidc") for browser in browsers]
    answers = await asyncio.gather(
        *(browser.get(address) for browser, address in zip(browsers, addresses, strict=True))
    )
    assert [answer.status_code for answer in answers] == [303] * 4
    assert len(await oauth.rows(users)) == len(await oauth.rows(identities)) == 1


async def test_who_is_made_between_two_looks_is_the_same_user(
    oauth: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look for the account and that for its address, the other request has ended."""
    me = await _me(oauth, "oidc")
    look = accounts._known

    def look_too_early(*_: Any) -> None:
        monkeypatch.setattr(accounts, "_known", look)

    monkeypatch.setattr(accounts, "_known", look_too_early)
    assert await _me(oauth, "oidc") == me


async def test_a_new_user_has_a_plan_of_the_service(oauth: Service) -> None:
    me = await _me(oauth, "oidc")
    assert me
    assert me["plan"] in oauth.engine.policy.plans


@pytest.mark.parametrize(
    ("email", "organisations", "expected"),
    [
        ("jane@example.com", [], True),
        ("JANE@Example.COM", [], True),
        ("jane@sub.example.com", [], False),
        ("jane@evilexample.com", [], False),
        ("jane@example.com.evil", [], False),
        ("example.com@evil.example", [], False),
        ("ada@other.example", [], True),
        ("eve@other.example", [], False),
        ("eve@evil.example", ["acme"], True),
        ("eve@evil.example", ["acme-2"], False),
    ],
)
def test_what_the_list_admits(email: str, organisations: list[str], expected: bool) -> None:
    allowed = parse_allowed(" Example.com, ada@other.example,github:Acme ")
    assert allowed.admits(email, domain_of(email), frozenset(organisations)) is expected


def test_an_empty_list_admits_nobody() -> None:
    assert not parse_allowed(" , ").admits("jane@example.com", "", frozenset({""}))


@pytest.mark.parametrize(
    "text", ["*", "@example.com", "example", "https://example.com", "github:", "github:a/b", "a b"]
)
def test_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match="must have entries such as"):
        parse_allowed(text)
