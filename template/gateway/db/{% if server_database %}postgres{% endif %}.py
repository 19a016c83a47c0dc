"""PostgreSQL, directly or behind a transaction pooler."""

import os
import re
import socket
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import cache
from typing import Any

import psycopg
from psycopg.errors import LockNotAvailable, ReadOnlySqlTransaction, UndefinedTable
from psycopg.pq import Conninfo
from pydantic_core import to_json
from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Insert,
    Integer,
    String,
    Table,
    Text,
    Update,
    bindparam,
    cast,
    column,
    event,
    false,
    func,
    insert,
    literal,
    select,
    text,
    true,
    update,
)
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError

from gateway.addresses import Address, AddressError, explained, is_host, parse
from gateway.config import GatewayConfig
from gateway.db.cancel_handle import CancelHandle
from gateway.db.engine import Database, Query, Result, Work, require_waiting
from gateway.db.prepared import GIVEN
from gateway.db.tables import Json, accounts, attempts, audit, metadata, policies, predictions
from gateway.errors import DatabaseUnavailable

Driver = psycopg.Connection[Any]
EXAMPLE = "postgresql://user:password@host/database"
SCHEMES = {"postgres", "postgresql"}
# Drivers of other programs are accepted in the scheme; the driver is always psycopg.
DRIVERS = {"", "asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async"}
# A socket's folder begins like this; @ is an abstract socket of Linux.
SOCKETS = ("/", "@")
SCHEMA = "app"
WRITERS = 3
# If one of these is off, a power loss may lose a commit.
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
# Detects a server that vanished, as in a failover, within seconds, not after a quarter of an hour.
CONNECTING = {
    "connect_timeout": 3,
    "tcp_user_timeout": 5_000,  # milliseconds
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
}
# Well below `patience_seconds`, so that a lock time-out is reported as such.
LOCK_TIMEOUT = "400ms"
# A process that hangs, or whose machine is gone, must not keep a lock.
SILENCE_TIMEOUT = "2s"
# The time-out of a cancel request: a server that is gone does not answer it either.
CANCEL_SECONDS = 0.5
ALIVE = text("SELECT 1")
# A check reports a lock time-out within a second.
TRIAL_TIMEOUT = "700ms"
LEDGER = (predictions, attempts, accounts, policies)
# Incompressible text that is together larger than a page.
NOISE, NOISES = func.md5(cast(func.random(), Text)), 300


class PostgresDatabase(Database):
    """The tables are in the schema `app`, which a host's API does not expose."""

    # The options of connections for reads: a single statement needs no transaction.
    reading: Mapping[str, Any] = {"isolation_level": "AUTOCOMMIT"}

    def __init__(self, url: URL) -> None:
        super().__init__(
            url,
            writers=WRITERS,
            reading=self.reading,
            # Prepared statements do not survive a transaction pooler.
            connect_args={"prepare_threshold": None, **CONNECTING},
            execution_options={"schema_translate_map": {None: SCHEMA}},
        )
        self._is_elsewhere = False
        event.listen(self._engine, "checkout", self._checked_out)

    async def create(self) -> None:
        """Does nothing: the server has created the database."""

    def absence(self) -> None:
        """None: only the server can tell."""

    def _require_kept(self) -> None:
        """Does nothing: a commit is in the server's database."""

    async def check(self) -> None:
        """As `Database.check`: commits what a generation needs, and leaves no data."""
        try:
            await self.transact(lambda connection: self.write_last(connection, _trial()))
        except DatabaseUnavailable as error:
            if not is_caused_by(error, UndefinedTable):  # `pending` reports a missing migration.
                raise

    async def weakness(self) -> str | None:
        off = [name for name in DURABLE if (await self.fetch(text(f"SHOW {name}")))[0][0] == "off"]
        return f"set {' and '.join(off)} to on, or a power loss takes commits" if off else None

    @staticmethod
    def microseconds() -> ColumnElement[int]:
        return cast(func.extract("epoch", func.clock_timestamp()) * 1_000_000, BigInteger)

    @staticmethod
    def rows(columns: Sequence[Column[Any]]) -> Mapping[str, ColumnElement[Any]]:
        # One JSON parameter for all rows, which the server expands. Its texts have no length: a
        # value that is too long for its column is then an error, where a cast would truncate it.
        fields = [column(c.name, Text() if _is_text(c) else c.type) for c in columns]
        given = cast(bindparam(f"{GIVEN}rows", type_=Text), JSON)
        listed = func.json_to_recordset(given).table_valued(*fields, name="listed")
        # The limit tells the planner the number of rows; it would else scan whole tables.
        count = bindparam(f"{GIVEN}count", type_=Integer)
        rows = select(listed.render_derived(with_types=True)).limit(count).subquery("given")
        return dict(rows.c.items())

    @staticmethod
    def lock_timeout() -> ColumnElement[str]:
        # Evaluated before the rows of its statement are locked.
        return func.concat(
            func.set_config("lock_timeout", LOCK_TIMEOUT, true()),
            func.set_config("idle_in_transaction_session_timeout", SILENCE_TIMEOUT, true()),
        )

    def is_contended(self, error: DatabaseUnavailable) -> bool:
        return is_caused_by(error, LockNotAvailable)

    async def transact(
        self, work: Work[Result], seconds: float | None = None, user_id: str | None = None
    ) -> Result:
        try:
            return await super().transact(work, seconds, user_id)
        except DatabaseUnavailable as error:
            # After a failover, the address leads to another server.
            self._is_elsewhere |= is_caused_by(error, ReadOnlySqlTransaction)
            raise

    def _checked_out(self, *_: Any) -> None:
        # The pool then closes each connection at its next use. Replacing the pool would lose those
        # that are in use.
        if self._is_elsewhere:
            self._is_elsewhere = False
            raise InvalidatePoolError

    def _sign_of_life(self, cancel_handle: CancelHandle) -> float:
        with self._reading.connect() as connection, cancel_handle.of(connection):
            connection.execute(ALIVE)
        return time.time()

    def cancel_query(self, driver: Driver) -> None:
        # The server checks the connection only when it sends: it would go on to wait for a lock,
        # and hold its own. So it gets a cancel request. The socket is shut down too, as a proxy may
        # keep the connection to a server that is gone.
        with suppress(psycopg.Error):
            driver.cancel_safe(timeout=CANCEL_SECONDS)
        with (
            suppress(psycopg.Error, OSError),
            socket.socket(fileno=os.dup(driver.pgconn.socket)) as same,
        ):
            if not driver.closed:  # A closed descriptor may belong to another socket by now.
                same.shutdown(socket.SHUT_RDWR)

    def _execute(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        with self._pipeline(connection) as driver:
            cursors = [self._send(driver, query) for query in queries]
        return self._results(queries, cursors)

    def _results(
        self, queries: Sequence[Query], cursors: Sequence[psycopg.Cursor[Any]]
    ) -> list[Sequence[Any]]:
        pairs = zip(queries, cursors, strict=True)
        return [self._prepared(query.statement).rows(cursor) for query, cursor in pairs]

    def write_last(self, connection: Connection, queries: Sequence[Query]) -> None:
        require_waiting(connection)
        with self._pipeline(connection) as driver:
            for query in queries:
                self._send(driver, query)
            # The driver's own commit can wait forever after a large write: it only reads, while
            # the server waits for the rest of the data.
            driver.execute("COMMIT")

    @contextmanager
    def _pipeline(self, connection: Connection) -> Iterator[Driver]:
        """The driver's connection in pipeline mode, without a round trip for each statement.

        Statements are done, or raise their errors, at the end of the context.
        """
        driver: Any = connection.connection.driver_connection
        try:
            with driver.pipeline():
                yield driver
        except psycopg.Error as error:
            if driver.closed:
                # Others may be closed too. SQLAlchemy replaces all when it sees the error itself.
                connection.exec_driver_sql("SELECT 1")
            raise self._fault(error) from error

    def _send(self, driver: Driver, query: Query) -> psycopg.Cursor[Any]:
        prepared, rows = self._prepared(query.statement), query.rows or ()
        given = {f"{GIVEN}rows": to_json(rows).decode(), f"{GIVEN}count": len(rows)}
        return driver.execute(prepared.text, {**prepared.fixed, **given})


@cache
def _trial() -> list[Query]:
    """A transaction with the needs of a generation.

    It reads all tables, writes those of the ledger, needs space for a new page, takes the ledger's
    lock, and commits.
    """
    lock = select(policies.c.id).where(policies.c.id == 1).with_for_update()
    return [
        Query(select(func.set_config("lock_timeout", TRIAL_TIMEOUT, true()))),
        *(Query(select(true()).select_from(each).limit(1)) for each in metadata.sorted_tables),
        *(Query(_no_update(table)) for table in LEDGER),
        Query(text("SAVEPOINT trial")),
        Query(_filling()),
        Query(text("ROLLBACK TO SAVEPOINT trial")),
        Query(lock),
    ]


def _filling() -> Insert:
    """Inserts a row that makes a table grow. It is rolled back.

    Its id sorts before all that queries look for.
    """
    word = literal("trial")
    row = select(func.concat("0", NOISE), func.now(), word, word, func.string_agg(NOISE, ""))
    rows = row.select_from(func.generate_series(1, NOISES).alias())
    return insert(audit).from_select(["id", "at", "action", "target", "after"], rows)


def _no_update(table: Table) -> Update:
    """Locks the table as an update does, and changes nothing."""
    key = next(iter(table.primary_key))
    return update(table).where(false()).values({key: key})


def is_caused_by(error: DatabaseUnavailable, kind: type[psycopg.Error]) -> bool:
    """Whether the driver's error behind `error` is of a `kind`."""
    cause = error.__cause__
    return isinstance(cause, DBAPIError) and isinstance(cause.orig, kind)


def _is_text(column: Column[Any]) -> bool:
    return isinstance(column.type, Json | String)


def open_database(config: GatewayConfig) -> PostgresDatabase:
    """The database of `DATABASE_URL`. Raises `StartError` for a wrong address."""
    return PostgresDatabase(url_of(config.database_url))


@asynccontextmanager
async def single_instance_lock(_: GatewayConfig, __: Database) -> AsyncIterator[None]:
    """Does nothing: any number of processes may serve at once."""
    yield


def url_of(url: str, variable: str = "DATABASE_URL") -> URL:
    """SQLAlchemy's URL for an address (`postgres://`, `postgresql://`, `?host=/socket`).

    Raises `StartError`, which names the `variable`, for a wrong address.
    """
    with explained(variable, EXAMPLE):
        address = parse(url)
        scheme, _, driver = address.scheme.partition("+")
        if scheme not in SCHEMES or driver not in DRIVERS:
            raise AddressError("it is not the address of a PostgreSQL database")
        address.require_options([option.keyword.decode() for option in Conninfo.get_defaults()])
        options: dict[str, list[str]] = {}
        for name, value in address.options:
            options.setdefault(name, []).append(value)
        _require_place(address, options)
        parsed = URL.create(
            "postgresql+psycopg",
            *(address.user, address.password, address.host or None, address.port),
            address.path or None,
            {name: values if len(values) > 1 else values[0] for name, values in options.items()},
        )
        try:
            parsed.get_dialect()().create_connect_args(parsed)
        except (ArgumentError, ValueError) as error:
            raise AddressError("the host and port among its options are not both right") from error
    return parsed


def _require_place(address: Address, options: Mapping[str, Sequence[str]]) -> None:
    """Raise `AddressError` unless a server and a database are named: libpq would guess them."""
    if "service" in options:  # A file names them.
        return
    if address.host or not options.keys() & {"host", "hostaddr"}:
        address.require_server()
    for host in (each for value in options.get("host", ()) for each in value.split(",")):
        if not host.startswith(SOCKETS) and not is_host(re.sub(":[0-9]+$", "", host)):
            raise AddressError("its option host is not a name, an IP address or a socket's folder")
    if not address.path and "dbname" not in options:
        raise AddressError("it has no database")
