"""`/v1/admin/teams…`: teams, their plans and members, for the owner of the service."""

from fastapi import APIRouter, Depends
from sqlalchemy import select

from app.dependencies import ERRORS, Administrator, EngineDep, require_reader
from app.routes.base import AskedPage, StrictRoute
from app.routes.team import TeamsDep
from app.routes.usage import AskedDays
from app.schemas.teams import Member, MemberRequest, Team, TeamChange, TeamRequest
from gateway.accounts.teams import members_of
from gateway.db.tables import teams as table
from gateway.db.tables import users
from gateway.ledger.usage_report import GroupBy
from gateway.schemas.base import Page
from gateway.schemas.usage import UsageReport

router = APIRouter(
    prefix="/v1/admin/teams", tags=["admin"], responses=ERRORS, route_class=StrictRoute
)
READING = [Depends(require_reader)]


@router.get("", dependencies=READING)
async def list_teams(page: AskedPage) -> Page[Team]:
    """All teams, newest first."""
    return await page.of(Team.model_validate, select(table), table)


@router.post("", status_code=201)
async def create_team(
    actor: Administrator, body: TeamRequest, engine: EngineDep, teams: TeamsDep
) -> Team:
    """A new team without members."""
    engine.policy.require_team_plan(body.plan)
    return Team.model_validate(await teams.create(body.name, body.plan, actor))


@router.patch("/{team_id}")
async def change_team(
    actor: Administrator, team_id: str, body: TeamChange, engine: EngineDep, teams: TeamsDep
) -> Team:
    """Change a team's name or plan. The plan acts at the next call."""
    engine.policy.require_team_plan(body.plan)
    return Team.model_validate(await teams.change(team_id, actor, **body.model_dump()))


@router.get("/{team_id}/usage", dependencies=READING, response_model_exclude_unset=True)
async def usage_of_team(
    team_id: str,
    engine: EngineDep,
    teams: TeamsDep,
    days: AskedDays,
    group_by: GroupBy = "user",
) -> UsageReport:
    """What the members of a team spent together, by day and member, model or outcome."""
    team = await teams.get(team_id)
    return await engine.report.of_team(team.id, team.plan, days, group_by)


@router.get("/{team_id}/members", dependencies=READING)
async def list_members_of_team(team_id: str, teams: TeamsDep, page: AskedPage) -> Page[Member]:
    """The members of a team, the newest user first."""
    await teams.get(team_id)
    return await page.of(Member.model_validate, members_of(team_id), users)


@router.post("/{team_id}/members", status_code=204)
async def add_member(
    actor: Administrator, team_id: str, body: MemberRequest, teams: TeamsDep
) -> None:
    """Make a user a member of a team, or change a member's role in the team."""
    await teams.add(team_id, body.user_id, body.role, actor)


@router.delete("/{team_id}/members/{user_id}", status_code=204)
async def remove_member_of_team(
    actor: Administrator, team_id: str, user_id: str, teams: TeamsDep
) -> None:
    """Remove a member from a team, also its last owner."""
    await teams.remove(team_id, user_id, actor, keep_an_owner=False)
