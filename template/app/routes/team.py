"""`/v1/team…`: the caller's team. Its owners see its usage and manage its members."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.dependencies import ERRORS, Changer, CurrentUser, EngineDep
from app.routes.base import AskedPage
from app.routes.usage import AskedDays
from app.schemas.teams import (
    JoinRequest,
    Member,
    OwnTeam,
    ReceivedInvitation,
    TeamInvitation,
    TeamInvitationRequest,
)
from gateway.accounts.invitations import pending, received
from gateway.accounts.principals import Membership, Scope, TeamRole
from gateway.accounts.teams import members_of, unknown_team
from gateway.db.tables import team_invitations, users
from gateway.engine import Engine
from gateway.errors import Forbidden
from gateway.http.query import StrictRoute
from gateway.ledger.usage_report import GroupBy
from gateway.schemas.base import Page
from gateway.schemas.usage import UsageReport

router = APIRouter(prefix="/v1", tags=["team"], responses=ERRORS, route_class=StrictRoute)


async def get_membership(caller: CurrentUser) -> Membership:
    """The caller's team. Raises `NotFound` without one."""
    caller.require(Scope.READ)
    if caller.team is None:
        raise unknown_team()
    return caller.team


MembershipDep = Annotated[Membership, Depends(get_membership)]


async def get_owned_team(team: MembershipDep) -> Membership:
    """The team that the caller owns. Raises `Forbidden` for its other members."""
    _require_owner(team)
    return team


OwnedTeam = Annotated[Membership, Depends(get_owned_team)]


@router.get("/team")
async def my_team(team: MembershipDep, engine: EngineDep) -> OwnTeam:
    """The caller's team, and the caller's role in the team."""
    return await _own_team(engine, team.team_id, team.role)


@router.get("/team/usage", response_model_exclude_unset=True)
async def team_usage(
    team: OwnedTeam, engine: EngineDep, days: AskedDays, group_by: GroupBy = "user"
) -> UsageReport:
    """For an owner: what the members spent together, by day and member, model or outcome."""
    return await engine.report.of_team(team.team_id, team.plan, days, group_by)


@router.get("/team/members")
async def list_members(team: OwnedTeam, page: AskedPage) -> Page[Member]:
    """For an owner: the members, the newest user first."""
    return await page.of(Member.model_validate, members_of(team.team_id), users)


@router.delete("/team/members/{user_id}", status_code=204)
async def remove_member(
    caller: CurrentUser, actor: Changer, team: MembershipDep, user_id: str, engine: EngineDep
) -> None:
    """Remove a member, as an owner; every member may leave. The last owner stays."""
    if user_id != caller.user_id:
        _require_owner(team)
    await engine.teams.remove(team.team_id, user_id, actor)


@router.get("/team/invitations")
async def list_invitations(team: OwnedTeam, page: AskedPage) -> Page[TeamInvitation]:
    """For an owner: the pending invitations, newest first."""
    return await page.of(TeamInvitation.model_validate, pending(team.team_id), team_invitations)


@router.post("/team/invitations", status_code=201)
async def invite(
    actor: Changer, team: OwnedTeam, body: TeamInvitationRequest, engine: EngineDep
) -> TeamInvitation:
    """As an owner, invite an e-mail address, whether or not it belongs to a user."""
    made = await engine.invitations.create(team.team_id, body.email, actor)
    return TeamInvitation.model_validate(made)


@router.delete("/team/invitations/{invitation_id}", status_code=204)
async def withdraw_invitation(
    actor: Changer, team: OwnedTeam, invitation_id: str, engine: EngineDep
) -> None:
    """As an owner, withdraw a pending invitation."""
    await engine.invitations.withdraw(team.team_id, invitation_id, actor)


@router.get("/me/invitations")
async def my_invitations(caller: CurrentUser, page: AskedPage) -> Page[ReceivedInvitation]:
    """The invitations to the caller's e-mail address, newest first."""
    caller.require(Scope.READ)
    query = received(caller.user_id)
    return await page.of(ReceivedInvitation.model_validate, query, team_invitations)


@router.post("/team/join")
async def join_team(
    actor: Changer, caller: CurrentUser, body: JoinRequest, engine: EngineDep
) -> OwnTeam:
    """Accept an invitation; a user belongs to at most one team."""
    team_id = await engine.invitations.accept(caller.user_id, body.invitation_id, actor)
    return await _own_team(engine, team_id, TeamRole.MEMBER)


def _require_owner(team: Membership) -> None:
    if team.role is not TeamRole.OWNER:
        raise Forbidden("Only an owner of the team may do this.")


async def _own_team(engine: Engine, team_id: str, role: TeamRole) -> OwnTeam:
    row = await engine.teams.get(team_id)
    return OwnTeam.model_validate({**row._asdict(), "role": role})
