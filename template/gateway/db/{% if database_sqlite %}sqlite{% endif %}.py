"""SQLite: a file, one process."""

import asyncio
import datetime as dt
import fcntl
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Executable,
    bindparam,
    event,
    func,
    literal,
    text,
)

from gateway.addresses import AddressError, explained, parse
from gateway.config import ROOT, GatewayConfig
from gateway.db.cancel_handle import CancelHandle
from gateway.db.engine import Database, Query, Rows
from gateway.db.prepared import GIVEN, Prepared
from gateway.db.sqlite_file import SqliteFile
from gateway.errors import DatabaseUnavailable, StartError

EXAMPLE = "sqlite:///data/app.db"
# Schemes of other drivers are accepted too; the driver is always the standard library's.
SCHEMES = {"sqlite", "sqlite+pysqlite", "sqlite+aiosqlite"}
# File systems whose content is lost with the container.
EPHEMERAL = {"overlay", "tmpfs", "ramfs", "aufs", "fuse-overlayfs"}
BUSY_MS = 4000
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={BUSY_MS}", "foreign_keys=ON")
# The wait for the file's lock is split, so that the work ends soon after its caller times out.
TURNS, TURN_MS = 8, 500
# The pragmas of a file that survives a power loss; `synchronous` 2 is FULL.
DURABLE = ("wal", 2)
LOCK_PATIENCE_SECONDS = 10.0
LOCK_INTERVAL_SECONDS = 0.2
# Times, which are all in UTC, in SQLAlchemy's format.
sqlite3.register_adapter(dt.datetime, lambda time: time.isoformat(" ", "microseconds")[:26])


class SqliteDatabase(Database):
    """A file in WAL mode, with one writer at a time.

    With `synchronous=FULL`, a commit survives a power loss.
    """

    def __init__(self, path: Path) -> None:
        # Only `create` makes a file, so that a wrong address leaves no empty file.
        only_open = {"uri": "true", "mode": "rw"}
        url = URL.create("sqlite", database=f"file:{quote(str(path))}", query=only_open)
        super().__init__(url, writers=1, reading={"reading": True})
        self.file = SqliteFile(path)
        event.listen(self._engine, "connect", self._connected)
        event.listen(self._engine, "begin", self._begin)

    async def create(self) -> None:
        self.file.create()

    def absence(self) -> str | None:
        if self.file.path.exists():
            return None
        if self.file.path.with_name(f"{self.file.path.name}-wal").exists():
            return (
                f"{self.file.path} was deleted, or moved away from its -wal file: move it back. "
                "To start with an empty file, stop the service, remove -wal and -shm, "
                "and run: python -m app migrate"
            )
        return f"there is no file {self.file.path}: is DATABASE_URL right? migrate makes it"

    async def close(self) -> None:
        await super().close()
        self.file.close()

    async def weakness(self) -> str | None:
        (journal,) = await self.fetch(text("PRAGMA journal_mode"))
        (synchronous,) = await self.fetch(text("PRAGMA synchronous"))
        if (journal[0], synchronous[0]) != DURABLE:
            return "the file's disk cannot keep a write-ahead log: use a local disk"
        return None

    async def check(self) -> None:
        # Only a write detects a lock or a full disk. This one needs no table and changes nothing.
        await self.transact(lambda db: db.execute(text("PRAGMA user_version = 0")))

    def _connected(self, driver: sqlite3.Connection, _: Any) -> None:
        self.file.require_same()
        _configure(driver)
        self.file.opened()

    def _begin(self, connection: Connection) -> None:
        # Takes the write lock at once: a later upgrade can fail with SQLITE_BUSY.
        if not connection.get_execution_options().get("reading"):
            with self._driver(connection) as driver:
                _wait_for_lock(driver)
            self.file.require_unchanged()

    def _require_kept(self) -> None:
        self.file.require_same()

    @staticmethod
    def microseconds() -> ColumnElement[int]:
        return func.microseconds(type_=BigInteger)

    @staticmethod
    def rows(columns: Sequence[Column[Any]]) -> Mapping[str, ColumnElement[Any]]:
        # SQLite has no round trips: a statement is executed once for each row.
        return {c.name: bindparam(f"{GIVEN}{c.name}", type_=c.type).label(c.name) for c in columns}

    @staticmethod
    def lock_timeout() -> ColumnElement[str]:
        # `busy_timeout` does this for every transaction.
        return literal("")

    def is_contended(self, error: DatabaseUnavailable) -> bool:
        # `_wait_for_lock` has retried already.
        return False

    def _sign_of_life(self, cancel_handle: CancelHandle) -> float:
        """When any transaction last wrote: the wait for the file's lock is a wait for others."""
        return self.file.log_written_at()

    def cancel_query(self, driver: Any) -> None:
        """Does nothing: SQLite only waits for the lock, and `busy_timeout` ends that."""

    def _execute(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        with self._driver(connection) as driver:
            return [self._found(driver, *query) for query in queries]

    def write_last(self, connection: Connection, queries: Sequence[Query]) -> None:
        with self._driver(connection) as driver:
            for statement, rows in queries:
                prepared = self._prepared(statement)
                driver.executemany(prepared.text, _parameters(prepared, rows))

    def _found(
        self, driver: sqlite3.Connection, statement: Executable, rows: Rows | None
    ) -> list[Any]:
        prepared = self._prepared(statement)
        found: list[Any] = []
        for parameters in _parameters(prepared, rows):
            found += driver.execute(prepared.text, parameters)
        return prepared.rows(found)

    @contextmanager
    def _driver(self, connection: Connection) -> Iterator[sqlite3.Connection]:
        """The driver's connection. SQLAlchemy's execution takes longer than SQLite."""
        driver: Any = connection.connection.driver_connection
        try:
            yield driver
        except sqlite3.Error as error:
            raise self._fault(error) from error


def _parameters(prepared: Prepared, rows: Rows | None) -> Iterator[list[Any]]:
    """The parameters of each execution of a statement."""
    for row in [{}] if rows is None else rows:
        values = {**prepared.fixed, **row} if prepared.fixed else row
        yield [values[name] for name in prepared.order]


def open_database(config: GatewayConfig) -> SqliteDatabase:
    """The database of `DATABASE_URL`.

    Raises `StartError` for a wrong address, and in production for a file that would be lost with
    the container.
    """
    path = file_of(config.database_url)
    if config.production and not config.accept_ephemeral_database and is_ephemeral(path):
        raise StartError(
            f"{path} is lost with the container: mount a volume and point DATABASE_URL into it, or "
            "accept the loss of all data with ACCEPT_EPHEMERAL_DATABASE=true."
        )
    return SqliteDatabase(path)


@asynccontextmanager
async def single_instance_lock(_: GatewayConfig, database: SqliteDatabase) -> AsyncIterator[None]:
    """Hold the file for this process, by a lock on it and a lock on a second file, `NAME.lock`.

    Earlier versions check only the second file. Creates the file if it is missing. Waits a few
    seconds for an earlier process to stop, then raises `StartError`.
    """
    path = database.file.path
    database.file.create()
    with path.with_name(path.name + ".lock").open("a") as lock_file:
        give_up_at = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not (_locked(lock_file.fileno()) and database.file.lock()):
            if time.monotonic() > give_up_at:
                raise StartError(
                    f"Another process serves from {path}. An SQLite file belongs to one process: "
                    "stop the other one, or give each its own DATABASE_URL."
                )
            await asyncio.sleep(LOCK_INTERVAL_SECONDS)
        yield


def file_of(url: str) -> Path:
    """The file of `sqlite:///relative` or `sqlite:////absolute`; relative to the project.

    Raises `StartError` for an address that names no file.
    """
    with explained("DATABASE_URL", EXAMPLE):
        address = parse(url)
        if address.scheme not in SCHEMES:
            raise AddressError("it is not the address of an SQLite file")
        if address.host or address.port or address.user is not None:
            raise AddressError("it has a host: after sqlite: come three slashes, or four")
        address.require_options([])
        path = ROOT / address.path
        if address.path in {"", ":memory:"} or _is_folder(path):
            raise AddressError("it does not name a file")
    return path


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise AddressError(f"its file cannot be used: {error.strerror}") from error


def is_ephemeral(path: Path, mounts: str = "/proc/self/mounts") -> bool:
    """Whether `path` is on a file system that is lost with the container."""
    try:
        lines = Path(mounts).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # Not Linux, so not a container.
        return False
    points = {Path(fields[1]): fields[2] for fields in map(str.split, lines)}
    holders = [point for point in points if path.is_relative_to(point)]
    return points[max(holders, key=lambda point: len(point.parts))] in EPHEMERAL


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _wait_for_lock(driver: sqlite3.Connection) -> None:
    """Begin a transaction. Raises `TimeoutError` if its caller times out meanwhile."""
    driver.execute(f"PRAGMA busy_timeout={TURN_MS}")
    try:
        for turn in range(1, TURNS + 1):
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or turn == TURNS:
                    raise
                CancelHandle.require_current()
            else:
                return
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_MS}")


def _configure(connection: Any) -> None:
    # `_begin` starts transactions, not the driver.
    connection.isolation_level = None
    # SQLite's own clock has only milliseconds.
    connection.create_function("microseconds", 0, lambda: time.time_ns() // 1_000)
    cursor = connection.cursor()
    try:
        for setting in PRAGMAS:
            cursor.execute(f"PRAGMA {setting}")
    except sqlite3.DatabaseError as error:
        raise OSError(f"The file is no database: {error}") from error
    finally:
        cursor.close()
