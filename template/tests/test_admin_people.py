"""What the owner sees of people and their generations, and what may be changed."""

import json
import os
import pwd
import re
import socket
from typing import Any

import httpx2
import pytest

from app import wiring
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.db.tables import MAX_OPERATOR, audit, predictions, users
from tests.fixtures.service import Run
from tests.sign_in import signed_in
from tests.support import Service, User, chat, error_of, unique

READ = ["usage", "users", "predictions", "audit"]
FORBIDDEN = (403, "forbidden", None)


@pytest.fixture
async def admin(service: Service) -> User:
    return await service.create_user(role=Role.ADMIN)


@pytest.fixture
async def client(service: Service, admin: User) -> httpx2.AsyncClient:
    return service.client(admin)


@pytest.mark.parametrize("name", READ)
async def test_administrators_and_auditors_read_and_users_do_not(
    service: Service, name: str
) -> None:
    statuses = []
    for role in Role:
        response = await service.client(await service.create_user(role=role)).get(
            f"/v1/admin/{name}"
        )
        statuses.append((role, response.status_code))
    assert statuses == [(Role.USER, 403), (Role.AUDITOR, 200), (Role.ADMIN, 200)]


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
async def test_only_administrators_change_users(service: Service, user: User, role: Role) -> None:
    client = service.client(await service.create_user(role=role))
    response = await client.patch(f"/v1/admin/users/{user.id}", json={"plan": "few"})
    assert error_of(response) == FORBIDDEN
    assert await service.changes() == []


async def test_users_are_listed_newest_first_in_pages(
    service: Service, client: httpx2.AsyncClient, admin: User
) -> None:
    made = [admin, *[await service.create_user("few") for _ in range(2)]]
    first = (await client.get("/v1/admin/users?limit=2")).json()
    rest = (await client.get("/v1/admin/users", params={"cursor": first["next_cursor"]})).json()
    listed = [*first["data"], *rest["data"]]
    assert [each["id"] for each in listed] == [user.id for user in reversed(made)]
    assert rest["next_cursor"] is None
    own = {"id", "email", "role", "plan", "created_at", "disabled_at"}
    raised = {"raised_daily_nano_usd", "raised_monthly_nano_usd", "raised_until"}
    assert set(listed[0]) == own | raised | {"team_id", "team_role"}


async def test_each_list_takes_cursors_of_its_own_only(client: httpx2.AsyncClient) -> None:
    prefixes = {"users": "usr", "predictions": "pred", "audit": "aud"}
    taken = {
        (name, prefix)
        for name in prefixes
        for prefix in prefixes.values()
        if (await client.get(f"/v1/admin/{name}?cursor={prefix}_{32 * 'f'}")).status_code == 200
    }
    assert taken == set(prefixes.items())


async def test_a_change_acts_at_once_and_is_audited(
    service: Service, client: httpx2.AsyncClient, admin: User, user: User
) -> None:
    path = f"/v1/admin/users/{user.id}"
    response = await client.patch(path, json={"plan": "few", "role": "auditor"})
    assert (response.json()["plan"], response.json()["role"]) == ("few", "auditor")
    me = (await service.client(user).get("/v1/me")).json()
    assert (me["plan"], me["role"]) == ("few", "auditor")
    entry, *_ = (await client.get("/v1/admin/audit")).json()["data"]
    assert re.fullmatch("aud_[0-9a-f]{32}", entry.pop("id"))
    assert entry.pop("at").endswith("Z")
    assert entry == {
        "actor_id": admin.id,
        "action": "change",
        "target": f"user:{user.id}",
        "before": {"role": "user", "plan": "many"},
        "after": {"role": "auditor", "plan": "few"},
        "request_id": response.headers["X-Request-ID"],
    }


async def test_what_is_so_already_is_no_change(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    path = f"/v1/admin/users/{user.id}"
    assert (await client.patch(path, json={"plan": "many", "role": None})).status_code == 200
    assert (await client.patch(path, json={})).status_code == 200
    assert await service.changes() == []


async def test_a_user_can_be_disabled_and_let_in_again(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    path = f"/v1/admin/users/{user.id}"
    disabled = (await client.patch(path, json={"disabled": True})).json()
    assert disabled["disabled_at"].endswith("Z")
    assert (await service.client(user).get("/v1/me")).status_code == 401
    assert (await client.patch(path, json={"disabled": False})).json()["disabled_at"] is None
    entries = (await client.get("/v1/admin/audit", params={"limit": 2})).json()["data"]
    assert [entry["after"] for entry in entries] == [{"disabled": False}, {"disabled": True}]
    browser = await signed_in(service, user)
    assert (await browser.get("/v1/me")).status_code == 200


@pytest.mark.parametrize("change", [{"role": "user"}, {"role": "auditor"}, {"disabled": True}])
async def test_administrators_do_not_shut_themselves_out(
    service: Service, client: httpx2.AsyncClient, admin: User, change: dict[str, Any]
) -> None:
    response = await client.patch(f"/v1/admin/users/{admin.id}", json=change)
    assert error_of(response) == (409, "conflict", None)
    assert await service.changes() == []
    own_plan = await client.patch(f"/v1/admin/users/{admin.id}", json={"plan": "few"})
    assert own_plan.json()["plan"] == "few"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"plan": "gold"}, "invalid_request", "plan"),
        ({"role": "owner"}, "invalid_request", "role"),
        ({"disabled": "perhaps"}, "invalid_request", "disabled"),
        ({"disabled": "yes"}, "invalid_request", "disabled"),
        ({"disabled": 0}, "invalid_request", "disabled"),
        ({"email": "x@example.com"}, "unsupported_parameter", "email"),
    ],
)
async def test_a_wrong_change_is_refused(
    client: httpx2.AsyncClient, user: User, body: dict[str, Any], code: str, param: str
) -> None:
    response = await client.patch(f"/v1/admin/users/{user.id}", json=body)
    assert error_of(response) == (422, code, param)


@pytest.mark.parametrize("user_id", ["usr_" + "0" * 32, "x", "%00"])
async def test_an_unknown_user_is_not_found(client: httpx2.AsyncClient, user_id: str) -> None:
    response = await client.patch(f"/v1/admin/users/{user_id}", json={"plan": "few"})
    assert error_of(response) == (404, "not_found", None)


async def test_all_predictions_are_seen_with_their_users(
    service: Service, client: httpx2.AsyncClient
) -> None:
    people = [await service.create_user() for _ in range(2)]
    for each in people:
        await service.client(each).post("/v1/chat/completions", json=chat())
    listed = (await client.get("/v1/admin/predictions")).json()["data"]
    assert [each["user_id"] for each in listed] == [people[1].id, people[0].id]
    assert listed[0]["input"]["messages"][0]["content"] == "one two"
    assert listed[0]["outcome"] == "ok"
    query = {"user_id": people[0].id}
    (only,) = (await client.get("/v1/admin/predictions", params=query)).json()["data"]
    assert only == listed[1]
    wrong = await client.get("/v1/admin/predictions", params={"user_id": "\0"})
    assert error_of(wrong) == (422, "invalid_request", "user_id")


async def test_what_was_erased_is_seen_without_its_content(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    own = service.client(user)
    await own.post("/v1/chat/completions", json=chat())
    (row,) = await service.rows(predictions)
    await own.delete(f"/v1/predictions/{row.id}")
    (seen,) = (await client.get("/v1/admin/predictions")).json()["data"]
    assert (seen["id"], seen["input"], seen["output"]) == (row.id, None, None)
    assert seen["cost_nano_usd"] == row.cost_nano_usd > 0


async def test_what_the_command_line_does_to_users_is_audited_without_addresses(
    service: Service, run: Run
) -> None:
    await service.create_user(role=Role.ADMIN)  # The last administrator could not be disabled.
    email = f"{unique('jane')}@example.com"
    await run("users", "create", "--email", email, "--plan", "few")
    for words in (["set-plan", "--plan", "many"], ["set-role", "--role", "admin"], ["disable"]):
        await run("users", *words, "--email", email)
    row = (await service.rows(users))[-1]
    rows = await service.changes()
    assert [(entry.action, entry.after) for entry in rows] == [
        ("create", {"role": "user", "plan": "few"}),
        ("change", {"plan": "many"}),
        ("change", {"role": "admin"}),
        ("change", {"disabled": True}),
    ]
    assert {(entry.actor_id, entry.target) for entry in rows} == {(None, f"user:{row.id}")}
    assert not [entry for entry in rows if "@example.com" in str(entry._asdict())]


async def test_the_audit_names_the_operator_of_the_command_line(
    run: Run, client: httpx2.AsyncClient, user: User
) -> None:
    await run("users", "set-plan", "--plan", "few", "--email", user.email)
    entry, *_ = (await client.get("/v1/admin/audit")).json()["data"]
    assert (entry["action"], entry["request_id"]) == ("change", None)
    assert entry["actor_id"] == f"{pwd.getpwuid(os.getuid()).pw_name}@{socket.gethostname()}"


def test_an_operator_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, which runs under a number that no file there names."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(socket, "gethostname", lambda: "h" * 300)
    operator = command_line().operator
    assert operator is not None
    assert operator.startswith(f"{os.getuid()}@hhh")
    assert len(operator) == MAX_OPERATOR


async def test_a_credential_that_the_command_line_makes_is_audited(
    service: Service, run: Run
) -> None:
    email = f"{unique('jane')}@example.com"
    made = json.loads(
        (await run("users", "create", "--email", email, "--plan", "few", "--json")).stdout
    )
    if wiring.auth.NO_CREDENTIALS:
        pytest.skip("credentials are made elsewhere")
    created, credential = await service.rows(audit)
    assert created.target == f"user:{made['id']}"
    assert credential.action in {"create", "reset"}
    assert credential.target.startswith(("key:key_", f"password:{made['id']}"))
    assert credential.operator == command_line().operator
    assert made["credential"] not in str(credential._asdict())
