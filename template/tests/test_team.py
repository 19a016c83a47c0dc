"""`/v1/team…`: invitations, members and usage of the caller's team."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role, TeamRole
from gateway.accounts.teams import Teams
from gateway.accounts.users import Users
from gateway.db.tables import team_invitations, users, utc_now
from tests.sign_in import signed_in
from tests.support import Service, User, chat, error_of

NO_INVITATION = (404, "not_found", None)


class Team(NamedTuple):
    """A team with an owner and a member."""

    id: str
    owner: User
    member: User


@pytest.fixture
async def team(service: Service) -> Team:
    return await make_team(service)


async def make_team(service: Service, name: str = "Acme") -> Team:
    """A team with an owner and a member."""
    table = Teams(service.database)
    made = await table.create(name, "shared", command_line())
    owner, member = [await service.create_user() for _ in range(2)]
    await table.add(made.id, owner.id, TeamRole.OWNER, command_line())
    await table.add(made.id, member.id, TeamRole.MEMBER, command_line())
    return Team(made.id, owner, member)


async def invite(service: Service, team: Team, email: str) -> str:
    """The id of a new invitation by the team's owner."""
    owner = service.client(team.owner)
    answer = await owner.post("/v1/team/invitations", json={"email": email})
    assert answer.status_code == 201
    return str(answer.json()["id"])


async def join(service: Service, user: User, invitation_id: str) -> httpx2.Response:
    return await service.client(user).post("/v1/team/join", json={"invitation_id": invitation_id})


async def test_a_member_sees_the_team(service: Service, team: Team) -> None:
    seen = (await service.client(team.member).get("/v1/team")).json()
    assert seen.pop("created_at").endswith("Z")
    assert seen == {"id": team.id, "name": "Acme", "plan": "shared", "role": "member"}


async def test_a_log_in_and_its_session_bring_the_team_along(service: Service, team: Team) -> None:
    browser = await signed_in(service, team.member)
    for client in (service.client(team.member), browser):
        assert (await client.get("/v1/team")).json()["id"] == team.id
    command = await Users(service.database).principal(team.member.id)
    assert command.team == (team.id, "shared", TeamRole.MEMBER)


async def test_a_user_without_a_team_has_none(service: Service, user: User) -> None:
    client = service.client(user)
    for path in ("", "/usage", "/members", "/invitations"):
        assert error_of(await client.get(f"/v1/team{path}")) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "usage"),
        ("GET", "members"),
        ("GET", "invitations"),
        ("POST", "invitations"),
        ("DELETE", "invitations/inv_" + 32 * "0"),
        ("DELETE", "members/usr_" + 32 * "0"),
    ],
)
async def test_only_an_owner_manages_the_team(
    service: Service, team: Team, method: str, path: str
) -> None:
    body = {"email": "jane@example.com"} if method == "POST" else None
    client = service.client(team.member)
    response = await client.request(method, f"/v1/team/{path}", json=body)
    assert error_of(response) == (403, "forbidden", None)


async def test_the_owner_sees_what_members_spent_in_the_team_and_nothing_else(
    service: Service, team: Team
) -> None:
    stranger = await service.create_user()
    for user in (team.owner, team.member, stranger):
        assert (await service.client(user).post("/v1/chat/completions", json=chat())).is_success
    invitation = await invite(service, team, stranger.email)
    assert (await join(service, stranger, invitation)).is_success
    report = (await service.client(team.owner).get("/v1/team/usage")).json()
    assert {line["user_id"] for line in report["data"]} == {team.owner.id, team.member.id}
    cost = sum(line["cost_nano_usd"] for line in report["data"])
    assert report["day"]["spent_nano_usd"] == report["month"]["spent_nano_usd"] == cost > 0


async def test_an_invited_user_joins_and_everything_is_audited(
    service: Service, team: Team, user: User
) -> None:
    invitation = await invite(service, team, user.email.upper())
    (seen,) = (await service.client(user).get("/v1/me/invitations")).json()["data"]
    assert (seen["id"], seen["team_name"]) == (invitation, "Acme")
    joined = await join(service, user, invitation)
    assert (joined.json()["id"], joined.json()["role"]) == (team.id, "member")
    listed = (await service.client(team.owner).get("/v1/team/members")).json()["data"]
    assert {(each["id"], each["role"]) for each in listed} == {
        (team.owner.id, "owner"),
        (team.member.id, "member"),
        (user.id, "member"),
    }
    invited, entered = (await service.changes())[-2:]
    assert (invited.actor_id, invited.action, invited.target) == (
        team.owner.id,
        "invite",
        f"team:{team.id}",
    )
    assert (entered.actor_id, entered.action, entered.target) == (
        user.id,
        "join",
        f"user:{user.id}",
    )
    assert "@" not in f"{invited.after}{entered.after}"


async def test_an_invitation_looks_the_same_whether_or_not_the_address_is_a_users(
    service: Service, team: Team
) -> None:
    other = await make_team(service, "Other")
    answers = [
        await service.client(team.owner).post("/v1/team/invitations", json={"email": email})
        for email in ("nobody@example.com", other.member.email)
    ]
    shapes = [(answer.status_code, answer.json().keys()) for answer in answers]
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 201


async def test_a_second_invitation_replaces_the_first(
    service: Service, team: Team, user: User
) -> None:
    first, second = [await invite(service, team, user.email) for _ in range(2)]
    assert error_of(await join(service, user, first)) == NO_INVITATION
    assert (await join(service, user, second)).is_success


async def _used(service: Service, team: Team, invitation: str) -> User:
    user = await service.create_user()
    await service.write(update(team_invitations).values(email=user.email))
    assert (await join(service, user, invitation)).is_success
    return user


async def _expired(service: Service, team: Team, invitation: str) -> User:
    user = await service.create_user()
    await service.write(update(team_invitations).values(email=user.email, expires_at=utc_now()))
    return user


async def _another_users(service: Service, team: Team, invitation: str) -> User:
    return await service.create_user()


async def _withdrawn(service: Service, team: Team, invitation: str) -> User:
    user = await service.create_user()
    await service.write(update(team_invitations).values(email=user.email))
    path = f"/v1/team/invitations/{invitation}"
    assert (await service.client(team.owner).delete(path)).status_code == 204
    return user


async def _not_verified(service: Service, team: Team, invitation: str) -> User:
    """The address may be another person's."""
    user = await service.create_user()
    await service.write(
        update(team_invitations).values(email=user.email),
        update(users).where(users.c.id == user.id).values(must_verify_email=True),
    )
    return user


@pytest.mark.parametrize("spoil", [_not_verified, _used, _expired, _another_users, _withdrawn])
async def test_an_invitation_that_is_not_valid_is_not_found(
    service: Service, team: Team, spoil: Callable[[Service, Team, str], Awaitable[User]]
) -> None:
    invitation = await invite(service, team, "jane@example.com")
    user = await spoil(service, team, invitation)
    client = service.client(user)
    assert (await client.get("/v1/me/invitations")).json()["data"] == []
    body = {"invitation_id": invitation}
    refused = await client.post("/v1/team/join", json=body)
    unknown = await client.post("/v1/team/join", json={"invitation_id": "inv_" + 32 * "0"})
    assert error_of(refused) == NO_INVITATION
    assert refused.content == unknown.content


async def test_a_user_joins_one_team_of_two(service: Service, team: Team, user: User) -> None:
    other = await make_team(service, "Other")
    invitations = [await invite(service, each, user.email) for each in (team, other)]
    answers = await asyncio.gather(*(join(service, user, each) for each in invitations))
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    (kept,) = (await service.client(user).get("/v1/me/invitations")).json()["data"]
    joined = next(answer.json()["id"] for answer in answers if answer.is_success)
    assert kept["id"] == invitations[1 if joined == team.id else 0]


async def test_an_owner_removes_a_member_at_once(service: Service, team: Team) -> None:
    path = f"/v1/team/members/{team.member.id}"
    assert (await service.client(team.owner).delete(path)).status_code == 204
    member = service.client(team.member)
    assert error_of(await member.get("/v1/team")) == (404, "not_found", None)
    assert (await member.post("/v1/chat/completions", json=chat())).is_success
    again = await service.client(team.owner).delete(path)
    assert error_of(again) == (404, "not_found", None)


async def test_a_member_may_leave(service: Service, team: Team) -> None:
    path = f"/v1/team/members/{team.member.id}"
    assert (await service.client(team.member).delete(path)).status_code == 204


async def test_the_last_owner_stays(service: Service, team: Team) -> None:
    owner = service.client(team.owner)
    path = f"/v1/team/members/{team.owner.id}"
    assert error_of(await owner.delete(path)) == (409, "conflict", None)
    await Teams(service.database).add(team.id, team.member.id, TeamRole.OWNER, command_line())
    member = service.client(team.member)
    answers = await asyncio.gather(
        owner.delete(path), member.delete(f"/v1/team/members/{team.member.id}")
    )
    assert sorted(answer.status_code for answer in answers) == [204, 409]


async def test_a_disabled_owner_is_no_other_owner(service: Service, team: Team) -> None:
    await Teams(service.database).add(team.id, team.member.id, TeamRole.OWNER, command_line())
    await service.engine.users.change(team.member.id, command_line(), disabled=True)
    owner = service.client(team.owner)
    stays = await owner.delete(f"/v1/team/members/{team.owner.id}")
    assert error_of(stays) == (409, "conflict", None)
    assert (await owner.delete(f"/v1/team/members/{team.member.id}")).status_code == 204


async def test_another_teams_member_and_invitation_are_not_found(
    service: Service, team: Team
) -> None:
    other = await make_team(service, "Other")
    invitation = await invite(service, other, "jane@example.com")
    owner = service.client(team.owner)
    for there, nowhere in (
        (f"members/{other.member.id}", "members/usr_" + 32 * "0"),
        (f"invitations/{invitation}", "invitations/inv_" + 32 * "0"),
        (f"invitations/{invitation}", "invitations/%00"),
    ):
        answers = [await owner.delete(f"/v1/team/{path}") for path in (there, nowhere)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    assert len(await service.rows(team_invitations)) == 1


async def test_pending_invitations_are_bounded(
    service: Service, team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.accounts.invitations.MAX_PENDING", 2)
    for name in ("one", "two", "one"):
        await invite(service, team, f"{name}@example.com")
    owner = service.client(team.owner)
    refused = await owner.post("/v1/team/invitations", json={"email": "three@example.com"})
    assert error_of(refused) == (409, "conflict", None)
    listed = (await owner.get("/v1/team/invitations")).json()["data"]
    assert [each["email"] for each in listed] == ["one@example.com", "two@example.com"]
    await service.write(update(team_invitations).values(expires_at=utc_now()))
    await invite(service, team, "three@example.com")


@pytest.mark.parametrize("email", ["jane", "a:b@example.com", "jane@example.com\0", ""])
async def test_a_wrong_address_is_refused(service: Service, team: Team, email: str) -> None:
    owner = service.client(team.owner)
    response = await owner.post("/v1/team/invitations", json={"email": email})
    assert error_of(response) == (422, "invalid_request", "email")


async def test_an_auditor_in_a_team_changes_nothing(service: Service, team: Team) -> None:
    await service.write(
        update(users).where(users.c.id == team.owner.id).values(role=Role.AUDITOR.value)
    )
    owner = service.client(team.owner)
    assert (await owner.get("/v1/team/usage")).status_code == 200
    refused = await owner.post("/v1/team/invitations", json={"email": "jane@example.com"})
    assert error_of(refused) == (403, "forbidden", None)
