"""HTTP Basic: passwords, guesses, other sites' pages, and when access ends."""

import asyncio
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from app import wiring
from app.auth.basic import authenticator
from gateway.accounts import attempts
from gateway.accounts.attempts import FROM_ADDRESS_ON_ACCOUNT
from gateway.accounts.audit import command_line
from gateway.accounts.passwords import HASHER, passwords
from gateway.accounts.throttle import network_of
from gateway.accounts.users import Users
from gateway.db.tables import audit, sessions
from tests.fixtures.basic import logged_in
from tests.fixtures.service import Run, Start
from tests.sign_in import signed_in
from tests.support import Service, User, chat, error_of

WRONG = (401, "invalid_credentials", None)
PASSWORD = "Pässwört: mit Ümlaut & Doppelpunkt € 🔑"


async def set_password(service: Service, user: User, password: str) -> None:
    change = update(passwords).where(passwords.c.user_id == user.id)
    change = change.values(hash=HASHER.hash(password))
    await service.database.transact(lambda connection: connection.execute(change))


async def test_address_and_password_may_have_any_letters(service: Service) -> None:
    user = await service.create_user(email="jürgen.groß@exämple.de")
    await set_password(service, user, PASSWORD)
    for email in ("jürgen.groß@exämple.de", "JÜRGEN.groß@Exämple.DE", " jürgen.groß@exämple.de "):
        response = await logged_in(service, email, PASSWORD).get("/v1/me")
        assert response.json()["id"] == user.id
    response = await logged_in(service, user.email, PASSWORD.lower()).get("/v1/me")
    assert error_of(response) == WRONG


async def test_a_wrong_password_is_told_with_the_challenge(service: Service, user: User) -> None:
    for password in ("wrong", "", user.credential[:-1], f"{user.credential} "):
        response = await logged_in(service, user.email, password).get("/v1/me")
        assert error_of(response) == WRONG
        challenge = response.headers["WWW-Authenticate"]
        assert challenge.startswith("Basic realm=")
        assert 'charset="UTF-8"' in challenge


async def test_an_unknown_address_is_told_like_a_wrong_password(
    service: Service, user: User, hashed: list[str]
) -> None:
    answers = [
        await logged_in(service, email, "wrong").get("/v1/me")
        for email in (user.email, "nobody@example.com", "", "\n'; --")
    ]
    assert [error_of(answer) for answer in answers] == [WRONG] * 4
    assert len({answer.text for answer in answers}) == 1
    # It takes as long, too: a hash each.
    assert hashed == ["wrong"] * 4


async def test_only_a_hash_is_stored_and_a_dear_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Other tests have cheap ones.
    for module in ("gateway.accounts.passwords", "gateway.accounts.password_checker"):
        monkeypatch.setattr(f"{module}.HASHER", HASHER)
    user = await service.create_user()
    (row,) = await service.database.fetch(select(passwords))
    assert row.hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert user.credential not in repr(row)
    assert (await service.client(user).get("/v1/me")).status_code == 200


async def test_a_password_that_was_right_is_hashed_once(
    service: Service, user: User, client: httpx2.AsyncClient, hashed: list[str]
) -> None:
    for _ in range(2 * FROM_ADDRESS_ON_ACCOUNT):
        assert (await client.get("/v1/me")).status_code == 200
    assert hashed == [user.credential]


async def test_requests_that_arrive_together_share_a_hash(
    user: User, client: httpx2.AsyncClient, hashed: list[str]
) -> None:
    together = 2 * FROM_ADDRESS_ON_ACCOUNT
    answers = await asyncio.gather(*(client.get("/v1/me") for _ in range(together)))
    assert [answer.status_code for answer in answers] == [200] * together
    assert hashed == [user.credential]


async def test_a_check_is_not_kept_for_ever(
    service: Service,
    user: User,
    client: httpx2.AsyncClient,
    hashed: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authenticator, "CHECK_IS_KEPT_SECONDS", 0)
    for _ in range(2):
        assert (await client.get("/v1/me")).status_code == 200
    assert hashed == [user.credential] * 2


async def test_checks_that_are_kept_are_bounded(
    service: Service, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authenticator, "CHECKS_KEPT", 2)
    clients = [service.client(await service.create_user()) for _ in range(4)]
    for client in clients:
        assert (await client.get("/v1/me")).status_code == 200
    kept: dict[bytes, float] = service.app.state.authenticator.method._checked
    assert len(kept) <= 2
    assert len(hashed) == 4


async def test_guesses_are_slowed_down(service: Service, user: User, hashed: list[str]) -> None:
    guesses = 3 * FROM_ADDRESS_ON_ACCOUNT
    answers = await asyncio.gather(
        *(logged_in(service, user.email, f"{n}").get("/v1/me") for n in range(guesses))
    )
    refused = [answer for answer in answers if answer.status_code == 429]
    # Some more pass only when this takes so long that the bucket refills.
    assert FROM_ADDRESS_ON_ACCOUNT <= len(hashed) < guesses
    assert len(refused) == guesses - len(hashed)
    assert {error_of(answer) for answer in refused} == {(429, "too_many_attempts", None)}
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)
    # The right password waits as well: otherwise the time would reveal a right guess.
    assert (await service.client(user).get("/v1/me")).status_code == 429


async def test_guesses_do_not_lock_out_who_is_in_or_others(
    service: Service, user: User, client: httpx2.AsyncClient
) -> None:
    assert (await client.get("/v1/me")).status_code == 200
    guesses = 2 * FROM_ADDRESS_ON_ACCOUNT
    await asyncio.gather(
        *(logged_in(service, user.email, f"{n}").get("/v1/me") for n in range(guesses))
    )
    assert (await client.get("/v1/me")).status_code == 200
    other = await service.create_user()
    assert (await service.client(other).get("/v1/me")).status_code == 200


async def test_who_is_in_goes_on_from_anywhere(
    service: Service, user: User, forgetful: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where guesses from the same address have used up all that it may try."""
    monkeypatch.setattr(attempts, "FROM_ADDRESS_ON_ACCOUNT", 1)

    async def status(address: str, password: str = user.credential) -> int:
        return (await logged_in(service, user.email, password, address).get("/v1/me")).status_code

    assert await status("192.0.2.1") == 200
    for address in ("192.0.2.1", "192.0.2.2"):
        assert [await status(address, f"{address} {n}") for n in range(2)] == [401, 429]
        assert await status(address) == 200


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::1", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        ("", ""),
    ],
)
def test_a_caller_with_many_addresses_is_one(address: str, network: str) -> None:
    assert network_of(address) == network


FOREIGN: list[dict[str, str]] = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "nonsense"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "http://["},
    {"Origin": "127.0.0.1"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_another_sites_page_changes_nothing(
    service: Service, client: httpx2.AsyncClient, headers: dict[str, str]
) -> None:
    requests: list[tuple[str, str, Any]] = [
        ("POST", "/v1/chat/completions", chat()),
        ("POST", "/v1/predictions", {"model": "offline/echo", "input": {"prompt": "x"}}),
        ("DELETE", "/v1/predictions/pred_x", None),
        ("PUT", "/v1/predictions/pred_x/feedback", {"rating": "up"}),
    ]
    for method, path, body in requests:
        response = await client.request(method, path, json=body, headers=headers)
        assert error_of(response) == (403, "forbidden", None)
    assert await service.rows_count() == 0
    # To look is no change, and another site's page cannot read the answer.
    response = await client.get("/v1/me", headers=headers)
    assert response.status_code == 200
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_own_pages_and_programs_may(start: Start) -> None:
    service = await start(public_url="https://ai.example.com/")
    client = service.client(await service.create_user())
    own: list[dict[str, str]] = [
        {},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "same-origin", "Origin": service.url},
        {"Origin": "https://ai.example.com"},
    ]
    for headers in own:
        response = await client.post("/v1/chat/completions", json=chat(), headers=headers)
        assert response.status_code == 200, headers


CROSS = {"Sec-Fetch-Site": "cross-site", "Origin": "https://app.example.com"}


@pytest.mark.parametrize("shared", ["https://app.example.com", "*"])
async def test_pages_of_shared_origins_change_what_a_browser_asks_about_before(
    start: Start, shared: str
) -> None:
    """Without asking, it would send a password along that the page does not know."""
    service = await start(cors_origins=shared)
    client = service.client(await service.create_user())
    sent = await client.post("/v1/chat/completions", json=chat(), headers=CROSS)
    assert sent.status_code == 200
    deleted = await client.delete("/v1/predictions/pred_x", headers=CROSS)
    assert error_of(deleted) == (404, "not_found", None)
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "x; application/json"):
        headers = {**CROSS, "Content-Type": content_type}
        simple = await client.post("/v1/chat/completions", content=b"{}", headers=headers)
        assert error_of(simple) == (403, "forbidden", None)


async def test_pages_of_other_origins_still_change_nothing(start: Start) -> None:
    service = await start(cors_origins="https://another.example.com")
    client = service.client(await service.create_user())
    for headers in (CROSS, {"Sec-Fetch-Site": "cross-site"}):
        response = await client.post("/v1/chat/completions", json=chat(), headers=headers)
        assert error_of(response) == (403, "forbidden", None)


async def test_a_new_password_ends_the_old_one_at_once(
    service: Service, user: User, client: httpx2.AsyncClient
) -> None:
    assert (await client.get("/v1/me")).status_code == 200
    password = await wiring.auth.create_credential(
        service.settings, service.database, user.id, command_line()
    )
    assert error_of(await client.get("/v1/me")) == WRONG
    response = await logged_in(service, user.email, password).get("/v1/me")
    assert response.json()["id"] == user.id


async def test_a_disabled_user_is_out_at_once_also_with_a_kept_check(
    service: Service, user: User, client: httpx2.AsyncClient
) -> None:
    assert (await client.get("/v1/me")).status_code == 200
    await Users(service.database).change(user.id, command_line(), disabled=True)
    response = await client.get("/v1/me")
    assert error_of(response) == WRONG
    wrong = await logged_in(service, user.email, "wrong").get("/v1/me")
    assert wrong.json() == response.json()


async def test_a_password_that_is_reset_is_audited(service: Service, user: User, run: Run) -> None:
    result = await run("passwords", "reset", "--email", user.email, "--json")
    *_, entry = await service.rows(audit)
    assert (entry.action, entry.target) == ("reset", f"password:{user.id}")
    assert (entry.actor_id, entry.operator) == (None, command_line().operator)
    assert json.loads(result.stdout)["credential"] not in str(entry._asdict())


async def test_a_new_password_ends_the_sessions_of_the_user(service: Service, user: User) -> None:
    browser, other = (
        await signed_in(service, user),
        await signed_in(service, await service.create_user()),
    )
    await wiring.auth.create_credential(service.settings, service.database, user.id, command_line())
    assert error_of(await browser.get("/v1/me")) == WRONG
    assert (await other.get("/v1/me")).status_code == 200


async def test_guesses_on_the_page_are_slowed_down(service: Service, user: User) -> None:
    browser = service.client()
    answers = [
        await browser.post("/auth/session", data={"email": user.email, "password": f"{n}"})
        for n in range(FROM_ADDRESS_ON_ACCOUNT + 1)
    ]
    assert [each.status_code for each in answers[:-1]] == [401] * FROM_ADDRESS_ON_ACCOUNT
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert "Too many log-ins" in answers[-1].text


async def test_the_session_of_a_key_is_none_without_keys(service: Service, user: User) -> None:
    """A database may have sessions of a log-in that the service had before."""
    browser = await signed_in(service, user)
    await service.write(update(sessions).values(key_id="key_x"))
    assert error_of(await browser.get("/v1/me")) == WRONG
