"""`python -m app links …`: links that work once, to hand over."""

from typing import Annotated

import typer
from pydantic import TypeAdapter

from app.auth.jwt import accounts, open_links
from app.cli.base import Json, Session, command, show
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.signed_links import Link
from gateway.schemas.base import Time

app = typer.Typer(name="links", help="Links to choose a password.", no_args_is_help=True)
Email = Annotated[str, typer.Option(help="Whose link it is.")]


@command(app)
async def invite(
    session: Session,
    email: Email,
    role: Annotated[Role, typer.Option(help="What the user may do.")] = Role.USER,
    plan: Annotated[str, typer.Option(help="A plan of plans.toml.")] = "free",
    as_json: Json = False,
) -> None:
    """Make a user without a password, and a link to choose one."""
    session.policy.require_plan(plan)
    links = open_links(session.settings, session.database)
    invited, link = await accounts.invite(
        session.database, links, email, role, plan, command_line()
    )
    _show(invited, link, as_json)


@command(app)
async def reset(session: Session, email: Email, as_json: Json = False) -> None:
    """Make a link to a new password. The old one works until then."""
    links = open_links(session.settings, session.database)
    user, link = await accounts.reset_link(session.database, links, email, command_line())
    _show(user, link, as_json)


def _show(email: str, link: Link, as_json: bool) -> None:
    ends = TypeAdapter(Time).dump_python(link.expires_at)
    text = f"{email}, until {ends}:\n{link.url}"
    show({"email": email, "link": link.url, "expires_at": ends}, as_json, text)
