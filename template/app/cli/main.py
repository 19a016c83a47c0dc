"""The command line: `python -m app …`."""

import asyncio
import signal
import sys
from importlib import import_module
from typing import Annotated

import typer

from app import wiring
from app.cli import models, predictions, teams, users
from app.cli.ask import ask
from app.cli.base import Json, Session, command, fail, in_session, show, show_findings
from app.cli.doctor import examine
from app.cli.serve import become
from app.cli.stop import alert_key, start, stop
from app.cli.usage import usage
from gateway.db.migrate import upgrade

app = typer.Typer(
    help="The AI service.",
    no_args_is_help=True,
    add_completion=False,
    # Boxes cut the long names of options at 80 columns.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for module in (users, teams, models, predictions, *map(import_module, wiring.COMMANDS)):
    app.add_typer(module.app)
for work in (ask, stop, start, usage, alert_key):
    command(app)(work)


@command(app)
async def migrate(session: Session, as_json: Json = False) -> None:
    """Bring the tables up to date."""
    applied = await upgrade(session.database)
    text = f"Applied {', '.join(applied)}." if applied else "The tables are up to date already."
    show(applied, as_json, text)


@app.command()
def serve(
    migrate_first: Annotated[
        bool, typer.Option("--migrate", help="Bring the tables up to date first.")
    ] = False,
) -> None:
    """Serve on PORT until a signal stops it."""
    # A host's request to stop is no failure, also before it serves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if migrate_first:
        asyncio.run(in_session(migrate, {}))
    become()


@app.command()
def doctor(
    production: Annotated[
        bool, typer.Option("--production", help="As strictly as production needs it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check environment, policy files, provider keys, database, migrations and limiter.

    Warns of what is stopped, and of users with a plan that plans.toml lacks. In production also:
    separate keys, replicas, budget, and whether a commit outlives a power loss.
    """
    findings = examine(production=production)
    show_findings([finding._asdict() for finding in findings], findings, as_json)
    if any(finding.verdict == "problem" for finding in findings):
        fail("There is something to do before this service can run.")
