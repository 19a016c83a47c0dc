"""`python -m app backup` and `python -m app restore`."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from app import wiring
from app.cli.base import Json, Session, command, show
from gateway.db import backup as copies
from gateway.db.sqlite import file_of, single_instance_lock

app = typer.Typer()


@command(app)
async def backup(
    session: Session,
    file: Annotated[Path, typer.Argument(help="A new file, which this user alone may read.")],
    as_json: Json = False,
) -> None:
    """Copy the database to a file while the service runs, and check the copy."""
    await asyncio.to_thread(copies.backup, file_of(session.settings.database_url), file)
    size = file.stat().st_size
    show({"file": str(file), "bytes": size}, as_json, f"{file} has {size} bytes and is whole.")


@command(app)
async def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(help="What `backup` wrote.")],
    as_json: Json = False,
) -> None:
    """Put a copy in place of the database, which is kept beside it. Stop the service first."""
    path = file_of(session.settings.database_url)
    database = wiring.database.open_database(session.settings.gateway)
    async with single_instance_lock(session.settings.gateway, database):
        replaced = await asyncio.to_thread(copies.restore, file, path)
    kept = f" The file before is {replaced}." if replaced else ""
    text = f"{path} is restored.{kept} Bring it up to date with: python -m app migrate"
    show({"file": str(path), "replaced": replaced and str(replaced)}, as_json, text)
