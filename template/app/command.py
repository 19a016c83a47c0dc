"""What every command of `python -m app` shares: settings, the database, and how errors are told.

Exit code 0: done; 1: refused or a check failed; 2: wrong usage.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, NamedTuple

import typer
from pydantic_core import to_json

from app import wiring
from app.db.engine import Database
from app.errors import ServiceError, StartError
from app.settings import Settings, load

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value.")]


class Session(NamedTuple):
    """What a command works with."""

    settings: Settings
    database: Database


def run(work: Callable[[Session], Awaitable[None]]) -> None:
    """Do `work` with the database open; an error of ours is a sentence and exit code 1."""

    async def main() -> None:
        settings = load()
        database = wiring.database.open_database(settings)
        try:
            await work(Session(settings, database))
        finally:
            await database.close()

    try:
        asyncio.run(main())
    except ServiceError as error:
        fail(error.message)
    except StartError as error:
        fail(str(error))


def fail(message: str) -> None:
    """Say what is wrong and end with exit code 1."""
    print(message, file=sys.stderr)
    raise typer.Exit(1)


def show(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text` for a person."""
    print(to_json(value).decode() if as_json else text)
