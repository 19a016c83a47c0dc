"""`python -m app teams …`."""

from typing import Annotated

import typer

from app.cli.base import Json, Session, checked_name, command, show, show_list
from app.schemas.teams import Member, Team
from gateway.accounts.audit import command_line
from gateway.accounts.principals import TeamRole
from gateway.accounts.teams import members_of
from gateway.counts import counted
from gateway.db.tables import users

app = typer.Typer(name="teams", help="Teams, their plans and their members.", no_args_is_help=True)
TeamId = Annotated[str, typer.Argument(metavar="TEAM", help="As `teams list` shows it.")]
Plan = Annotated[str, typer.Option(help="A team plan of plans.toml.")]
Email = Annotated[str, typer.Option(help="The member's e-mail address.")]
As = Annotated[TeamRole, typer.Option(help="What the member may do in the team.")]


@command(app)
async def create(
    session: Session,
    name: Annotated[str, typer.Option(help="What the team is called.", callback=checked_name)],
    plan: Plan,
    as_json: Json = False,
) -> None:
    """Make a team."""
    session.policy.require_team_plan(plan)
    row = await session.teams.create(name, plan, command_line())
    show(Team.model_validate(row), as_json, row.id)


@command(app, "list")
async def list_teams(session: Session, as_json: Json = False) -> None:
    """Show all teams."""
    found = [Team.model_validate(row) for row in await session.teams.list()]
    empty = "There are no teams; make one with: python -m app teams create"
    show_list(found, as_json, lambda t: f"{t.id}  {t.name}  {t.plan}", empty)


@command(app)
async def members(session: Session, team: TeamId, as_json: Json = False) -> None:
    """Show the members of a team."""
    row = await session.teams.get(team)
    rows = await session.database.fetch(members_of(row.id).order_by(users.c.id))
    found = [Member.model_validate(each) for each in rows]
    empty = f"{row.name} has {counted(0, 'member')}."
    show_list(found, as_json, lambda m: f"{m.id}  {m.email}  {m.role}", empty)


@command(app)
async def set_plan(session: Session, team: TeamId, plan: Plan, as_json: Json = False) -> None:
    """Change what the members of a team may use together."""
    session.policy.require_team_plan(plan)
    row = await session.teams.change(team, command_line(), plan=plan)
    show(Team.model_validate(row), as_json, f"{row.name}: plan {row.plan}.")


@command(app)
async def add(
    session: Session,
    team: TeamId,
    email: Email,
    role: As = TeamRole.MEMBER,
    as_json: Json = False,
) -> None:
    """Make a user a member, or change a member's role."""
    user = await session.users.find(email)
    await session.teams.add(team, user.id, role, command_line())
    shown = {"id": user.id, "email": user.email, "role": role.value}
    show(shown, as_json, f"{user.email}: {role.value} of {team}.")


@command(app)
async def remove(session: Session, team: TeamId, email: Email, as_json: Json = False) -> None:
    """End a membership at once."""
    user = await session.users.find(email)
    await session.teams.remove(team, user.id, command_line(), keep_an_owner=False)
    show({"id": user.id, "email": user.email}, as_json, f"{user.email} left {team}.")
