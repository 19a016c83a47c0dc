"""The command line: `python -m app …`."""

from importlib import import_module
from typing import Annotated

import typer

from app import ask as asking
from app import doctor as checks
from app import serve as serving
from app import wiring
from app.auth.principal import Role
from app.auth.users import Users
from app.command import Json, Session, run, show
from app.db import migrate as migrations
from app.usage.schemas import Me

app = typer.Typer(help="The AI service.", no_args_is_help=True, pretty_exceptions_enable=False)
users = typer.Typer(help="Users, their roles and plans.", no_args_is_help=True)
app.add_typer(users, name="users")
# The commands of the chosen way to log in are in its package.
app.add_typer(import_module(".commands", wiring.auth.__name__).app)

Email = Annotated[str, typer.Option(help="The user's e-mail address.")]
Plan = Annotated[str, typer.Option(help="A plan of plans.toml.")]


@app.command()
def serve(
    migrate: Annotated[bool, typer.Option(help="Bring the tables up to date first.")] = False,
) -> None:
    """Serve on PORT until told to stop."""
    serving.serve(migrate=migrate)


@app.command()
def migrate() -> None:
    """Bring the tables up to date."""

    async def work(session: Session) -> None:
        await migrations.upgrade(session.database)

    run(work)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check environment, policy files, database, limiter and provider keys."""
    checks.examine(as_json=as_json)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask.", envvar="QUESTION")],
    model: Annotated[str, typer.Option(help="A model of models.toml.")] = "offline/echo",
    url: Annotated[str, typer.Option(help="The service; by default the one on PORT.")] = "",
) -> None:
    """Ask the running service, and show the answer as it comes and what it cost."""
    run(lambda session: asking.ask(session, question, model, url))


@users.command("create")
def create_user(
    email: Email, role: Role = Role.USER, plan: Plan = "free", as_json: Json = False
) -> None:
    """Make a user and show a credential, this once."""

    async def work(session: Session) -> None:
        checks.known_plan(session.settings, plan)
        user = await Users(session.database).create(email, role, plan)
        secret = await wiring.auth.create_credential(session.settings, session.database, user.id)
        shown = {name: getattr(user, name) for name in ("id", "email", "role", "plan")}
        show({**shown, "credential": secret}, as_json, f"{user.email}: {secret}")

    run(work)


@users.command("list")
def list_users(as_json: Json = False) -> None:
    """Show all users."""

    async def work(session: Session) -> None:
        rows = await Users(session.database).list()
        shown = [
            {**Me.model_validate(row, from_attributes=True).model_dump(mode="json")} for row in rows
        ]
        lines = [f"{user['email']}  {user['role']}  {user['plan']}" for user in shown]
        show(shown, as_json, "\n".join(lines))

    run(work)


@users.command("set-role")
def set_role(email: Email, role: Role) -> None:
    """Change what a user may do."""

    async def work(session: Session) -> None:
        people = Users(session.database)
        await people.change((await people.find(email)).id, role=role.value)

    run(work)


@users.command("set-plan")
def set_plan(email: Email, plan: Plan) -> None:
    """Change what a user may use."""

    async def work(session: Session) -> None:
        checks.known_plan(session.settings, plan)
        people = Users(session.database)
        await people.change((await people.find(email)).id, plan=plan)

    run(work)


@users.command("disable")
def disable(email: Email) -> None:
    """End all access of a user; records stay."""

    async def work(session: Session) -> None:
        people = Users(session.database)
        await people.disable((await people.find(email)).id)

    run(work)
