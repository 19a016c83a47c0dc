"""`python -m app keys …`."""

from typing import Annotated

import typer

from app.auth.api_key.keys import Keys
from app.auth.api_key.schemas import ApiKey, CreatedKey
from app.auth.principal import Scope
from app.auth.users import Users
from app.command import Json, Session, run, show

app = typer.Typer(name="keys", help="API keys of users.", no_args_is_help=True)
Email = Annotated[str, typer.Option(help="Whose key it is.")]


@app.command()
def create(
    email: Email,
    name: Annotated[str, typer.Option(help="What it is for.")] = "key",
    scope: Annotated[list[Scope] | None, typer.Option(help="May be given several times.")] = None,
    as_json: Json = False,
) -> None:
    """Make a key and show it, this once."""

    async def work(session: Session) -> None:
        user = await Users(session.database).find(email)
        scopes = scope or [Scope.GENERATE, Scope.READ]
        new = await _keys(session).create(user.id, name, scopes)
        key = CreatedKey.of_new(new)
        show(key.model_dump(mode="json"), as_json, f"{key.secret}")

    run(work)


@app.command("list")
def list_keys(email: Email, as_json: Json = False) -> None:
    """Show a user's keys, newest first."""

    async def work(session: Session) -> None:
        user = await Users(session.database).find(email)
        keys = [
            ApiKey.of(row).model_dump(mode="json") for row in await _keys(session).list(user.id)
        ]
        lines = [f"{key['id']}  {key['name']}  {','.join(key['scopes'])}" for key in keys]
        show(keys, as_json, "\n".join(lines))

    run(work)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")], email: Email
) -> None:
    """End a key at once."""

    async def work(session: Session) -> None:
        user = await Users(session.database).find(email)
        await _keys(session).revoke(user.id, key_id)

    run(work)


def _keys(session: Session) -> Keys:
    return Keys(session.database, session.settings.project["name"])
