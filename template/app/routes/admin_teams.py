"""`/v1/admin/teams…`: teams, their plans and members, for the owner of the service."""

from fastapi import APIRouter, Depends
from sqlalchemy import select

from app.dependencies import ERRORS, Administrator, EngineDep, require_reader
from app.routes.base import AskedPage
from app.routes.usage import AskedDays
from app.schemas.teams import Member, MemberRequest, Team, TeamChange, TeamRequest
from gateway.accounts.teams import members_of
from gateway.db.tables import teams, users
from gateway.http.query import StrictRoute
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
    return await page.of(Team.model_validate, select(teams), teams)


@router.post("", status_code=201)
async def create_team(actor: Administrator, body: TeamRequest, engine: EngineDep) -> Team:
    """A new team without members."""
    engine.policy.require_team_plan(body.plan)
    return Team.model_validate(await engine.teams.create(body.name, body.plan, actor))


@router.patch("/{team_id}")
async def change_team(
    actor: Administrator, team_id: str, body: TeamChange, engine: EngineDep
) -> Team:
    """Change a team's name or plan. The plan acts at the next call."""
    engine.policy.require_team_plan(body.plan)
    return Team.model_validate(await engine.teams.change(team_id, actor, **body.model_dump()))


@router.get("/{team_id}/usage", dependencies=READING, response_model_exclude_unset=True)
async def usage_of_team(
    team_id: str, engine: EngineDep, days: AskedDays, group_by: GroupBy = "user"
) -> UsageReport:
    """What the members of a team spent together, by day and member, model or outcome."""
    team = await engine.teams.get(team_id)
    return await engine.report.of_team(team.id, team.plan, days, group_by)


@router.get("/{team_id}/members", dependencies=READING)
async def list_members_of_team(team_id: str, engine: EngineDep, page: AskedPage) -> Page[Member]:
    """The members of a team, the newest user first."""
    await engine.teams.get(team_id)
    return await page.of(Member.model_validate, members_of(team_id), users)


@router.post("/{team_id}/members", status_code=204)
async def add_member(
    actor: Administrator, team_id: str, body: MemberRequest, engine: EngineDep
) -> None:
    """Make a user a member of a team, or change a member's role in the team."""
    await engine.teams.add(team_id, body.user_id, body.role, actor)


@router.delete("/{team_id}/members/{user_id}", status_code=204)
async def remove_member_of_team(
    actor: Administrator, team_id: str, user_id: str, engine: EngineDep
) -> None:
    """Remove a member from a team, also its last owner."""
    await engine.teams.remove(team_id, user_id, actor, keep_an_owner=False)
