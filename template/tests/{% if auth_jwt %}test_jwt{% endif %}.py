"""Log-in for tokens: log in, refresh, log out, change the password."""

import asyncio
import datetime as dt
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from app import wiring
from gateway.accounts.audit import command_line
from gateway.accounts.logins import GRACE, logins, refresh_tokens
from gateway.accounts.users import Users
from gateway.db.tables import audit, utc_now
from tests.fixtures.jwt import bearer, log_in
from tests.fixtures.service import Run, Start
from tests.support import SECRET_KEY, Service, User, chat, error_of

WRONG = (401, "invalid_credentials", None)
NEW = "correct horse battery staple"


class Person:
    """A user with a password."""

    def __init__(self, service: Service, user: User, password: str) -> None:
        self.service, self.user, self.password = service, user, password

    async def log_in(self, password: str = "") -> dict[str, Any]:
        answer = await log_in(self.service, self.user.email, password or self.password)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens

    async def refresh(self, tokens: dict[str, Any]) -> httpx2.Response:
        body = {"refresh_token": tokens["refresh_token"]}
        return await self.service.client().post("/auth/refresh", json=body)

    async def status(self, tokens: dict[str, Any]) -> int:
        return (await bearer(self.service, tokens).get("/v1/me")).status_code


@pytest.fixture
async def person(service: Service, user: User) -> Person:
    password = await wiring.auth.create_credential(
        service.settings, service.database, user.id, command_line()
    )
    return Person(service, user, password)


async def test_log_in_refresh_and_log_out(service: Service, person: Person) -> None:
    tokens = await person.log_in()
    assert set(tokens) == {"access_token", "token_type", "expires_in", "refresh_token"}
    assert (tokens["token_type"], tokens["expires_in"] <= 900) == ("bearer", True)
    client = bearer(service, tokens)
    assert (await client.get("/v1/me")).json()["id"] == person.user.id
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    newer = (await person.refresh(tokens)).json()
    assert newer["refresh_token"] != tokens["refresh_token"]
    assert await person.status(newer) == 200
    assert (await bearer(service, newer).post("/auth/logout")).status_code == 204
    # The tokens of a log-in end with it, all of them.
    assert [await person.status(each) for each in (tokens, newer)] == [401, 401]
    assert error_of(await person.refresh(newer)) == WRONG


async def test_an_answer_with_tokens_is_kept_nowhere(service: Service, person: Person) -> None:
    tokens = await person.log_in()
    secrets = [tokens["access_token"], tokens["refresh_token"]]
    for secret in (person.password, person.user.email, *secrets):
        assert secret not in service.log
    rows = await service.database.fetch(select(refresh_tokens))
    assert tokens["refresh_token"] not in str([row._asdict() for row in rows])


async def test_one_log_in_ends_and_the_others_go_on(service: Service, person: Person) -> None:
    one, other = await person.log_in(), await person.log_in()
    await bearer(service, one).post("/auth/logout", json={"all": False})
    assert [await person.status(each) for each in (one, other)] == [401, 200]
    third = await person.log_in()
    await bearer(service, other).post("/auth/logout", json={"all": True})
    assert [await person.status(each) for each in (other, third)] == [401, 401]
    assert error_of(await person.refresh(third)) == WRONG
    assert await person.status(await person.log_in()) == 200


async def test_of_twenty_simultaneous_refreshes_one_wins(person: Person) -> None:
    tokens = await person.log_in()
    answers = await asyncio.gather(*(person.refresh(tokens) for _ in range(20)))
    winners = [answer for answer in answers if answer.status_code == 200]
    assert len(winners) == 1
    losers = [answer for answer in answers if answer not in winners]
    assert {error_of(answer) for answer in losers} == {(409, "conflict", None)}
    # A retry within the grace is no theft.
    newer = winners[0].json()
    assert await person.status(newer) == 200
    assert (await person.refresh(newer)).status_code == 200


async def test_a_used_token_that_comes_later_ends_the_log_in(
    service: Service, person: Person
) -> None:
    stolen, other = await person.log_in(), await person.log_in()
    newer = (await person.refresh(stolen)).json()
    used = update(refresh_tokens).where(refresh_tokens.c.used_at.is_not(None))
    earlier = utc_now() - GRACE - dt.timedelta(seconds=1)
    await service.write(used.values(used_at=earlier))
    assert error_of(await person.refresh(stolen)) == WRONG
    assert error_of(await person.refresh(newer)) == WRONG
    assert [await person.status(each) for each in (stolen, newer, other)] == [401, 401, 200]
    assert "its log-in was ended" in service.log


async def test_a_log_in_expires(service: Service, person: Person) -> None:
    tokens = await person.log_in()
    await service.write(update(logins).values(expires_at=utc_now() - dt.timedelta(seconds=1)))
    assert await person.status(tokens) == 401
    assert error_of(await person.refresh(tokens)) == WRONG
    # The next log-in removes what has expired.
    await person.log_in()
    assert len(await service.rows(logins)) == 1


@pytest.mark.parametrize("token", ["x", "a" * 43, "ä", "' OR 1=1 --", "x" * 2000])
async def test_a_refresh_token_that_never_was(service: Service, token: str) -> None:
    answer = await service.client().post("/auth/refresh", json={"refresh_token": token})
    assert error_of(answer) == WRONG


async def test_an_access_token_refreshes_nothing(service: Service, person: Person) -> None:
    tokens = await person.log_in()
    swapped = {"access_token": tokens["refresh_token"], "refresh_token": tokens["access_token"]}
    assert await person.status(swapped) == 401
    assert error_of(await person.refresh(swapped)) == WRONG


async def test_a_new_password_ends_every_log_in(service: Service, person: Person) -> None:
    one, other = await person.log_in(), await person.log_in()
    body = {"current": person.password, "new": NEW}
    answer = await bearer(service, one).post("/auth/password", json=body)
    assert answer.status_code == 200
    assert [await person.status(each) for each in (one, other, answer.json())] == [401, 401, 200]
    assert error_of(await person.refresh(other)) == WRONG
    wrong = await log_in(service, person.user.email, person.password)
    assert error_of(wrong) == WRONG
    assert await person.status(await person.log_in(NEW)) == 200
    *_, entry = await service.rows(audit)
    assert (entry.action, entry.target) == ("change", f"password:{person.user.id}")
    assert (entry.actor_id, entry.request_id) == (person.user.id, answer.headers["X-Request-ID"])


async def test_the_current_password_is_needed_for_a_new_one(
    service: Service, person: Person
) -> None:
    client = bearer(service, await person.log_in())
    answer = await client.post("/auth/password", json={"current": "wrong", "new": NEW})
    assert error_of(answer) == WRONG
    short = await client.post("/auth/password", json={"current": person.password, "new": "short"})
    assert error_of(short) == (422, "invalid_request", "new")
    assert (await client.get("/v1/me")).status_code == 200


async def test_the_command_line_ends_log_ins_by_a_new_password(
    service: Service, person: Person, run: Run
) -> None:
    tokens = await person.log_in()
    result = await run("passwords", "reset", "--email", person.user.email, "--json")
    assert await person.status(tokens) == 401
    password = json.loads(result.stdout)["credential"]
    assert await person.status(await person.log_in(password)) == 200


async def test_a_user_who_is_enabled_again_logs_in_again(service: Service, person: Person) -> None:
    tokens, users = await person.log_in(), Users(service.database)
    await users.change(person.user.id, command_line(), disabled=True)
    assert await person.status(tokens) == 401
    assert error_of(await person.refresh(tokens)) == WRONG
    assert error_of(await log_in(service, person.user.email, person.password)) == WRONG
    await users.change(person.user.id, command_line(), disabled=False)
    assert await person.status(tokens) == 401
    assert error_of(await person.refresh(tokens)) == WRONG
    assert await person.status(await person.log_in()) == 200


async def test_a_rotation_of_the_secret_key_logs_nobody_out(
    service: Service, person: Person, start: Start
) -> None:
    tokens = await person.log_in()
    new_key = SECRET_KEY[::-1]
    await service.stop()
    rotated = Person(
        await start(secret_key=new_key, secret_key_previous=SECRET_KEY),
        person.user,
        person.password,
    )
    assert await rotated.status(tokens) == 200
    newer = (await rotated.refresh(tokens)).json()
    await rotated.service.stop()
    later = Person(await start(secret_key=new_key), person.user, person.password)
    assert [await later.status(each) for each in (tokens, newer)] == [401, 200]


async def test_unknown_and_known_accounts_are_told_alike(
    service: Service, person: Person, hashed: list[str]
) -> None:
    answers = [
        await log_in(service, email, "wrong") for email in (person.user.email, "no@example.com")
    ]
    assert [error_of(answer) for answer in answers] == [WRONG] * 2
    assert len({answer.text for answer in answers}) == 1
    # It takes as long, too: a hash each.
    assert hashed == ["wrong"] * 2
    assert all(answer.headers["WWW-Authenticate"] for answer in answers)


@pytest.mark.parametrize("field", ["role", "plan", "team", "id", "user_id", "scopes"])
async def test_no_body_sets_what_is_not_its_own(
    service: Service, person: Person, field: str
) -> None:
    client = bearer(service, await person.log_in())
    bodies: dict[str, dict[str, Any]] = {
        "login": {"email": person.user.email, "password": person.password},
        "refresh": {"refresh_token": "x"},
        "password": {"current": person.password, "new": NEW},
        "accept": {"token": "x", "password": NEW},
        "verify": {"token": "x", "password": NEW},
        "reset": {"email": person.user.email},
        "register": {"email": "new@example.com", "password": NEW},
    }
    for route, body in bodies.items():
        answer = await client.post(f"/auth/{route}", json={**body, field: "admin"})
        assert error_of(answer) == (422, "unsupported_parameter", field), route
    assert (await client.get("/v1/me")).json()["role"] == "user"
