"""`python -m app passwords …`."""

from typing import Annotated

import typer

from app.cli.base import Json, Session, command, show
from gateway.accounts.audit import command_line
from gateway.accounts.passwords import Passwords

app = typer.Typer(name="passwords", help="Passwords of users.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Keeps `passwords reset` two words although it is the only one."""


@command(app)
async def reset(
    session: Session,
    email: Annotated[str, typer.Option(help="Whose password it is.")],
    as_json: Json = False,
) -> None:
    """Give a user a new random password and show it, this once."""
    user = await session.users.find(email)
    password = await Passwords(session.database).reset(user.id, command_line())
    show({"email": user.email, "credential": password}, as_json, password)
