"""Copies of the SQLite file: made while the service runs, put back while it does not."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from gateway.db.sqlite_file import INDEX, LOG
from gateway.db.tables import utc_now
from gateway.errors import StartError

# A copy holds all that users wrote, and hashes of credentials.
MODE = 0o600
# A table that every database of this service has.
MARK = "applied_migrations"


def backup(path: Path, target: Path) -> None:
    """Copy the database to a new file, for this user alone, and check the copy.

    Includes every transaction that was committed before. Raises `StartError`.
    """
    _require_file(path)
    with _new_file(target):
        _copy(path, target)


def restore(copy: Path, path: Path) -> Path | None:
    """Put a copy in place of the database; return where the replaced file is, if there was one.

    The caller keeps services from starting. Raises `StartError` if something uses the database, or
    the copy is not whole.
    """
    _require_file(copy)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # Of an earlier try that was killed.
    with _new_file(part):
        _copy(copy, part)
        replaced = _put_aside(path)
        part.replace(path)
        _sync(path.parent)
    return replaced


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(source))}?mode=ro", uri=True)) as origin,
            closing(sqlite3.connect(target)) as copy,
        ):
            # All pages in one step: a write between two would start it again.
            origin.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()  # One file, without a log.
            found = copy.execute("PRAGMA integrity_check").fetchone()[0]
            mark = copy.execute("SELECT 1 FROM sqlite_master WHERE name = ?", [MARK]).fetchone()
    except sqlite3.Error as error:
        raise StartError(f"{source} cannot be copied: {error}") from error
    if found != "ok":
        raise StartError(f"{source} is damaged: {found}")
    if mark is None:
        raise StartError(f"{source} is not a database of this service.")
    _sync(target)


def _put_aside(path: Path) -> Path | None:
    """Rename the database, and its log and index if it is damaged."""
    if not path.exists() or not path.stat().st_size:
        return None
    _require_unused(path)
    aside = path.with_name(f"{path.name}.{utc_now():%Y%m%dT%H%M%S.%fZ}")
    for suffix in (LOG, INDEX, ""):
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside


def _require_unused(path: Path) -> None:
    """Raise `StartError` if a process has the database open. Writes its log into the file."""
    try:
        with closing(sqlite3.connect(path)) as last:
            # Only the last connection can leave the mode in which a log is written.
            last.execute("PRAGMA journal_mode = DELETE").fetchall()
    except sqlite3.DatabaseError as error:
        # A damaged file is replaced as it is.
        if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StartError(f"A process uses {path}: stop it first.") from error


@contextmanager
def _new_file(path: Path) -> Iterator[None]:
    """Make an empty file for this user alone. It is removed if the block raises an error."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, MODE))
    except FileExistsError as error:
        raise StartError(f"{path} is there already: choose another name.") from error
    except OSError as error:
        raise StartError(f"{path} cannot be written: {error.strerror}.") from error
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise StartError(f"There is no file {path}.")


def _sync(path: Path) -> None:
    """Make a file, or the names in a folder, survive a power loss."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
