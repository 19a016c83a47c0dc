"""`python -m app users export` and `users delete`."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

import app.tables  # noqa: F401 - your tables take part
from app.cli.base import Email, Json, Session, fail, show
from gateway.accounts.audit import command_line
from gateway.accounts.user_deletion import UserDeletion
from gateway.accounts.user_export import UserExport
from gateway.counts import counted

Progress = Callable[[int], None]


async def export(
    session: Session,
    email: Email,
    output: Annotated[
        Path | None, typer.Option(help="A new file, which only you can read; standard output.")
    ] = None,
) -> None:
    """Write everything about a user as JSON lines. Secrets are not part of it.

    The last line has the number of the lines before it.
    """
    user = await session.users.find(email)
    data = UserExport(session.database, user)
    await session.users.note_export(user.id, command_line())
    with _opened(output) as file, _progress(await data.count(), "Exporting") as advance:
        async for lines in data.batches():
            file.writelines(lines)
            advance(len(lines))


async def delete(
    session: Session,
    email: Email,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """End all access of a user and delete what is known of them. It cannot be undone.

    Costs stay, under an id that leads to nobody, and so does the audit. If it is interrupted, the
    same command goes on.
    """
    user = await session.users.find(email)
    work = UserDeletion(session.database, user)
    rows = await work.count()
    if not yes:
        question = f"Delete {user.email} and {counted(rows, 'row')}? It cannot be undone"
        typer.confirm(question, abort=True, err=True)
    await work.begin(command_line())
    with _progress(rows, "Deleting") as advance:
        async for done in work.batches():
            advance(done)
    show({"id": user.id}, as_json, f"Deleted. The costs stay under {user.id}.")


@contextmanager
def _opened(path: Path | None) -> Iterator[BinaryIO]:
    """The file to write; it has its name once it is complete."""
    if path is None:
        yield sys.stdout.buffer
        return
    part = path.with_name(f"{path.name}.part")
    if path.exists():
        fail(f"{path} is there already: name a new file.")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    except OSError as error:
        fail(f"{part} cannot be written: {error.strerror}.")
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, 0o600)  # It may be left of an earlier run.
        yield file
    part.rename(path)


@contextmanager
def _progress(length: int, label: str) -> Iterator[Progress]:
    """A bar on standard error."""
    with typer.progressbar(length=length, label=label, file=sys.stderr) as bar:
        yield bar.update
