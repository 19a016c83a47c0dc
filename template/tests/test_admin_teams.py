"""`/v1/admin/teams…` and `python -m app teams`: teams as the owner of the service sees them."""

import json

import httpx2
import pytest

from gateway.accounts.principals import Role
from gateway.db.tables import teams, users
from tests.fixtures.service import Run
from tests.support import Service, User, chat, error_of

UNKNOWN = "team_" + 32 * "0"


@pytest.fixture
async def admin(service: Service) -> User:
    return await service.create_user(role=Role.ADMIN)


@pytest.fixture
async def client(service: Service, admin: User) -> httpx2.AsyncClient:
    return service.client(admin)


async def create(client: httpx2.AsyncClient, name: str = "Acme") -> str:
    """The id of a new team."""
    answer = await client.post("/v1/admin/teams", json={"name": name, "plan": "shared"})
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def add(client: httpx2.AsyncClient, team: str, user: User, role: str) -> httpx2.Response:
    body = {"user_id": user.id, "role": role}
    return await client.post(f"/v1/admin/teams/{team}/members", json=body)


async def test_teams_are_listed_newest_first(client: httpx2.AsyncClient) -> None:
    made = [await create(client, name) for name in ("Acme", "Other")]
    listed = (await client.get("/v1/admin/teams")).json()
    assert [each["id"] for each in listed["data"]] == [made[1], made[0]]
    assert set(listed["data"][0]) == {"id", "name", "plan", "created_at"}


async def test_members_are_added_changed_and_removed(
    service: Service, client: httpx2.AsyncClient, admin: User, user: User
) -> None:
    team = await create(client)
    for role in ("member", "owner", "owner"):
        assert (await add(client, team, user, role)).status_code == 204
    members = (await client.get(f"/v1/admin/teams/{team}/members")).json()["data"]
    assert members == [{"id": user.id, "email": user.email, "role": "owner"}]
    (listed,) = [
        each
        for each in (await client.get("/v1/admin/users")).json()["data"]
        if each["id"] == user.id
    ]
    assert (listed["team_id"], listed["team_role"]) == (team, "owner")
    path = f"/v1/admin/teams/{team}/members/{user.id}"
    assert (await client.delete(path)).status_code == 204
    assert (await client.get(f"/v1/admin/teams/{team}/members")).json()["data"] == []
    changes = [(row.action, row.target, row.actor_id) for row in await service.changes()]
    added = [("add", f"user:{user.id}", admin.id)] * 2
    assert changes == [
        ("create", f"team:{team}", admin.id),
        *added,
        ("remove", f"user:{user.id}", admin.id),
    ]


async def test_a_member_of_another_team_is_a_conflict(
    client: httpx2.AsyncClient, user: User
) -> None:
    first, second = [await create(client, name) for name in ("Acme", "Other")]
    assert (await add(client, first, user, "member")).status_code == 204
    assert error_of(await add(client, second, user, "member")) == (409, "conflict", None)


async def test_a_team_changes_its_name_and_plan(
    service: Service, client: httpx2.AsyncClient
) -> None:
    team = await create(client)
    path = f"/v1/admin/teams/{team}"
    shown = (await client.patch(path, json={"name": "New", "plan": "narrow"})).json()
    assert (shown["name"], shown["plan"]) == ("New", "narrow")
    await client.patch(path, json={"name": "New"})
    listed = (await client.get("/v1/admin/audit")).json()["data"]
    changed, renamed = [
        next(entry for entry in listed if entry["action"] == action)
        for action in ("change", "rename")
    ]
    assert (changed["before"], changed["after"]) == ({"plan": "shared"}, {"plan": "narrow"})
    assert renamed["target"] == changed["target"] == f"team:{team}"
    assert "New" not in str(listed)


async def test_the_usage_of_a_team(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    team = await create(client)
    await add(client, team, user, "member")
    await service.client(user).post("/v1/chat/completions", json=chat())
    report = (await client.get(f"/v1/admin/teams/{team}/usage?group_by=model")).json()
    (line,) = report["data"]
    assert (line["model"], line["requests"]) == ("offline/echo", 1)
    assert report["day"]["spent_nano_usd"] == line["cost_nano_usd"] > 0


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "Acme", "plan": "gold"}, "plan"),
        ({"name": "", "plan": "shared"}, "name"),
        ({"name": "a\nb", "plan": "shared"}, "name"),
        ({"name": "Acme"}, "plan"),
    ],
)
async def test_a_wrong_team_is_refused(
    client: httpx2.AsyncClient, body: dict[str, str], param: str
) -> None:
    response = await client.post("/v1/admin/teams", json=body)
    assert error_of(response) == (422, "invalid_request", param)


@pytest.mark.parametrize("team", [UNKNOWN, "x", "%00"])
async def test_an_unknown_team_is_not_found(
    client: httpx2.AsyncClient, user: User, team: str
) -> None:
    path, body = f"/v1/admin/teams/{team}", {"user_id": user.id}
    for response in (
        await client.patch(path, json={"name": "New"}),
        await client.get(f"{path}/usage"),
        await client.get(f"{path}/members"),
        await client.post(f"{path}/members", json=body),
        await client.delete(f"{path}/members/{user.id}"),
    ):
        assert error_of(response) == (404, "not_found", None)


@pytest.mark.parametrize("user_id", ["usr_" + 32 * "0", "x", "\0"])
async def test_an_unknown_user_is_not_found(client: httpx2.AsyncClient, user_id: str) -> None:
    team = await create(client)
    path = f"/v1/admin/teams/{team}/members"
    assert error_of(await client.post(path, json={"user_id": user_id}))[0] == 404


async def test_the_command_line_manages_teams(service: Service, run: Run, user: User) -> None:
    made = await run("teams", "create", "--name", "Acme", "--plan", "shared", "--json")
    team = json.loads(made.stdout)["id"]
    await run("teams", "add", team, "--email", user.email, "--role", "owner")
    (row,) = await service.rows(users)
    assert (row.team_id, row.team_role) == (team, "owner")
    assert user.email in (await run("teams", "members", team)).stdout
    await run("teams", "set-plan", team, "--plan", "narrow")
    listed = json.loads((await run("teams", "list", "--json")).stdout)
    assert [(each["id"], each["plan"]) for each in listed] == [(team, "narrow")]
    await run("teams", "remove", team, "--email", user.email)
    assert "has 0 members" in (await run("teams", "members", team)).stdout
    assert [row.action for row in await service.changes()] == ["create", "add", "change", "remove"]
    assert (await service.rows(teams))[0].name == "Acme"


async def test_the_command_line_shows_the_usage_of_a_team(
    service: Service, client: httpx2.AsyncClient, run: Run, user: User
) -> None:
    team, other = await create(client), await service.create_user()
    await add(client, team, user, "member")
    for each in (user, other):
        await service.client(each).post("/v1/chat/completions", json=chat())
    usage = (await client.get(f"/v1/admin/teams/{team}/usage")).json()
    words = "usage", "--team", team, "--group-by", "user"
    assert json.loads((await run(*words, "--json")).stdout) == usage
    assert [line["user_id"] for line in usage["data"]] == [user.id]
    assert user.email in (await run(*words)).stdout
    assert "offline/echo" in (await run("usage", "--team", team)).stdout
    unknown = await run("usage", "--team", "team_x")
    assert (unknown.exit_code, "There is no such team." in unknown.stderr) == (1, True)
    assert (await run("usage", "--team", team, "--user", user.email)).exit_code == 2


async def test_the_command_line_refuses_what_is_unknown(service: Service, run: Run) -> None:
    wrong_plan = await run("teams", "create", "--name", "Acme", "--plan", "gold")
    assert (wrong_plan.exit_code, "no such team plan" in wrong_plan.output) == (1, True)
    wrong_team = await run("teams", "members", "team_x")
    assert (wrong_team.exit_code, "no such team" in wrong_team.output) == (1, True)
    assert "make one" in (await run("teams", "list")).stdout
    wrong_name = await run("teams", "create", "--name", "", "--plan", "shared")
    assert wrong_name.exit_code == 2
