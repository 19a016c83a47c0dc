"""Administration of users: search, create, raise budgets, end sessions; the audit only grows."""

import asyncio
import datetime as dt
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.exc import DBAPIError

from gateway.accounts.audit import command_line
from gateway.accounts.principals import Raise, Role
from gateway.accounts.users import Users
from gateway.db.tables import audit, sessions, users, utc_now
from gateway.errors import Conflict, DatabaseUnavailable
from gateway.policy import Cap
from tests.fixtures.service import Run
from tests.ledger_helpers import check_accounts, usd
from tests.sign_in import signed_in
from tests.support import Service, User, chat, error_of, unique

USERS, CHAT = "/v1/admin/users", "/v1/chat/completions"


@pytest.fixture
async def admin(service: Service) -> User:
    return await service.create_user(role=Role.ADMIN)


@pytest.fixture
async def client(service: Service, admin: User) -> httpx2.AsyncClient:
    return service.client(admin)


async def _found(client: httpx2.AsyncClient, **query: Any) -> list[str]:
    page = (await client.get(USERS, params=query)).json()
    return [row["email"] for row in page["data"]]


async def test_users_are_searched(
    service: Service, client: httpx2.AsyncClient, admin: User, run: Run
) -> None:
    jane = await service.create_user("few", email="jane_doe@example.com")
    joe = await service.create_user("few", email="joe@example.org", role=Role.AUDITOR)
    await client.patch(f"{USERS}/{joe.id}", json={"disabled": True})
    assert await _found(client, email="JANE_") == [jane.email]
    assert await _found(client, email="e_d") == [jane.email]
    assert await _found(client, email="%") == []
    assert await _found(client, role="auditor") == [joe.email]
    assert await _found(client, plan="few") == [joe.email, jane.email]
    assert await _found(client, disabled=True) == [joe.email]
    assert await _found(client, disabled=False, plan="few") == [jane.email]
    words = "users", "list", "--json", "--plan", "few", "--enabled", "--email", "jane"
    assert [row["email"] for row in json.loads((await run(*words)).stdout)] == [jane.email]


async def test_an_administrator_creates_a_user_with_a_credential(
    service: Service, client: httpx2.AsyncClient, admin: User
) -> None:
    email = f"{unique('new')}@example.com"
    answer = await client.post(USERS, json={"email": email, "plan": "few", "role": "auditor"})
    made = answer.json()
    assert (answer.status_code, made["email"], made["plan"]) == (201, email, "few")
    (created,) = await service.changes()
    assert (created.actor_id, created.action) == (admin.id, "create")
    browser = await signed_in(service, User(made["id"], email, made["credential"], {}))
    me = (await browser.get("/v1/me")).json()
    assert (me["id"], me["role"]) == (made["id"], "auditor")
    assert made["credential"] not in service.log
    again = await client.post(USERS, json={"email": email, "plan": "few"})
    assert error_of(again) == (409, "conflict", None)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"email": "x"}, "invalid_request", "plan"),
        ({"email": "x", "plan": "few"}, "invalid_request", "email"),
        ({"email": "usr_1@deleted.invalid", "plan": "few"}, "invalid_request", "email"),
        ({"email": "a@b.de", "plan": "few", "role": "owner"}, "invalid_request", "role"),
        ({"email": "a@b.de", "plan": "few", "id": "usr_1"}, "unsupported_parameter", "id"),
        ({"email": "a@b.de", "plan": "few", "team_id": "x"}, "unsupported_parameter", "team_id"),
    ],
)
async def test_a_wrong_user_is_refused(
    client: httpx2.AsyncClient, body: dict[str, str], code: str, param: str
) -> None:
    assert error_of(await client.post(USERS, json=body)) == (422, code, param)


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"email": "a@b.de", "plan": "few"}),
        ("PUT", "/{id}/budget", {"daily_nano_usd": 1, "until": "2126-01-01"}),
        ("DELETE", "/{id}/budget", None),
        ("DELETE", "/{id}/sessions", None),
        ("GET", "/{id}/export", None),
    ],
)
async def test_only_administrators(
    service: Service, user: User, role: Role, method: str, path: str, body: Any
) -> None:
    client = service.client(await service.create_user(role=role))
    answer = await client.request(method, USERS + path.format(id=user.id), json=body)
    assert error_of(answer) == (403, "forbidden", None)
    assert await service.changes() == []


async def test_a_raise_pays_for_more_until_its_day(
    service: Service, client: httpx2.AsyncClient
) -> None:
    """Both budgets of the plan pay for no call; each has to be raised."""
    poor = await service.create_user("poor")
    mine = service.client(poor)
    assert (await mine.post(CHAT, json=chat())).status_code == 400  # It is more than the budget.
    bound = 10**7
    tomorrow = (utc_now().date() + dt.timedelta(days=1)).isoformat()
    body = {"daily_nano_usd": bound, "monthly_nano_usd": bound, "until": tomorrow}
    path = f"{USERS}/{poor.id}/budget"
    raised = (await client.put(path, json=body)).json()
    assert raised["raised_until"] == tomorrow
    assert (await mine.post(CHAT, json=chat())).status_code == 200
    report = (await mine.get("/v1/usage")).json()
    assert report["day"]["cap_nano_usd"] == report["month"]["cap_nano_usd"] == bound
    assert report["day"]["spent_nano_usd"] > 1
    # Raised by the day alone, the month's budget of the plan holds again.
    await client.put(path, json={"daily_nano_usd": bound, "until": tomorrow})
    assert (await mine.post(CHAT, json=chat())).status_code in {400, 402}
    await client.put(path, json={"monthly_nano_usd": bound, "until": tomorrow})
    assert (await mine.post(CHAT, json=chat())).status_code in {400, 402}
    assert (await client.delete(path)).status_code == 204
    assert (await mine.get("/v1/usage")).json()["day"]["cap_nano_usd"] == 1
    await check_accounts(service)


async def test_simultaneous_calls_never_pass_a_raised_budget(
    service: Service, client: httpx2.AsyncClient
) -> None:
    poor = await service.create_user("poor")
    body = {"daily_nano_usd": 10**9, "monthly_nano_usd": 10**9, "until": str(utc_now().date())}
    await client.put(f"{USERS}/{poor.id}/budget", json=body)
    mine = service.client(poor)
    await mine.post(CHAT, json=chat())
    attempt = await service.attempt()
    body |= {"daily_nano_usd": attempt.cost_nano_usd + 3 * attempt.bound_nano_usd}
    await client.put(f"{USERS}/{poor.id}/budget", json=body)
    await asyncio.gather(*(mine.post(CHAT, json=chat()) for _ in range(20)))
    day = (await mine.get("/v1/usage")).json()["day"]
    assert day["spent_nano_usd"] <= day["cap_nano_usd"] == body["daily_nano_usd"]
    assert day["spent_nano_usd"] > attempt.cost_nano_usd
    await check_accounts(service)


def test_a_raise_ends_with_its_day() -> None:
    cap = Cap("user:usr_1", 1, 2, Raise(7, 0, "2026-11-30"))
    assert [cap.on(day) for day in ("2026-11-30", "2026-12-01")] == [(7, 2), (1, 2)]
    no_cap = Cap("user:usr_1", None, 2, Raise(7, None, "2026-11-30"))
    assert no_cap.on("2026-11-30") == (None, 2)


@pytest.mark.parametrize(
    "body",
    [
        {"daily_nano_usd": 1, "until": "2020-01-01"},
        {"daily_nano_usd": 1, "until": "2126-01-01"},
        {"daily_nano_usd": 1},
        {"until": "2126-01-01"},
        {"daily_nano_usd": -1, "until": "2126-01-01"},
    ],
)
async def test_a_wrong_raise_is_refused(
    service: Service, client: httpx2.AsyncClient, user: User, body: dict[str, Any]
) -> None:
    answer = await client.put(f"{USERS}/{user.id}/budget", json=body)
    assert error_of(answer)[:2] == (422, "invalid_request")
    assert await service.changes() == []


async def test_the_command_line_raises_a_budget(service: Service, run: Run) -> None:
    poor = await service.create_user("poor")
    until = utc_now().date().isoformat()
    words = "users", "raise-budget", "--email", poor.email
    result = await run(*words, "--daily-usd", "1.5", "--monthly-usd", usd(10**9), "--until", until)
    assert result.exit_code == 0, result.output
    assert (await service.client(poor).post(CHAT, json=chat())).status_code == 200
    entry = (await service.changes())[-1]
    assert (entry.action, entry.after["raised_daily_nano_usd"]) == ("raise", 1_500_000_000)
    assert (await run(*words, "--end")).exit_code == 0
    assert (await service.client(poor).post(CHAT, json=chat())).status_code in {400, 402}
    for wrong in (["--end", "--until", until], ["--daily-usd", "1"], ["--until", until], []):
        assert (await run(*words, *wrong)).exit_code == 1
    assert (await run(*words, "--daily-usd", "much", "--until", until)).exit_code == 2


async def test_sessions_of_a_user_are_ended(
    service: Service, client: httpx2.AsyncClient, user: User, run: Run
) -> None:
    for end in ("api", "command"):
        principal = await service.engine.users.principal(user.id)
        await service.engine.sessions.create(principal, None)
        if end == "api":
            assert (await client.delete(f"{USERS}/{user.id}/sessions")).status_code == 204
        else:
            await run("users", "end-sessions", "--email", user.email)
        assert await service.database.fetch(select(sessions)) == []


async def test_the_last_administrator_stays(
    service: Service, run: Run, client: httpx2.AsyncClient, admin: User
) -> None:
    other = await service.create_user(role=Role.ADMIN)
    await client.patch(f"{USERS}/{other.id}", json={"disabled": True})
    words = ["disable"], ["set-role", "--role", "user"], ["delete", "--yes"]
    for command in words:
        result = await run("users", *command, "--email", admin.email)
        assert (result.exit_code, "the last administrator" in result.stderr) == (1, True)
    me = (await client.get("/v1/me")).json()
    assert me["role"] == "admin"


async def test_of_two_administrators_who_go_at_once_one_stays(service: Service) -> None:
    """Each tries to remove the other at the same moment, by each of the ways."""
    people = Users(service.database)
    actor = command_line()
    for change in ({"disabled": True}, {"role": Role.USER}):
        pair = [await service.create_user(role=Role.ADMIN) for _ in range(2)]
        going = (people.change(each.id, actor, **change) for each in pair)
        ended = await asyncio.gather(*going, return_exceptions=True)
        assert [type(each) for each in ended].count(Conflict) == 1
        await service.write(update(users).values(role="user"))


async def test_no_statement_changes_the_audit(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    await client.patch(f"{USERS}/{user.id}", json={"plan": "few"})
    before = await service.rows(audit)
    for statement in (update(audit).values(action="x"), delete(audit)):
        with pytest.raises((DBAPIError, DatabaseUnavailable)) as refused:
            await service.write(statement)
        assert "the audit only grows" in f"{refused.value} {refused.value.__cause__}"
    assert await service.rows(audit) == before
