"""Transactions on the chosen database: short, with time-outs, and with the service's errors."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Executable,
    Row,
    create_engine,
    event,
)
from sqlalchemy.exc import DatabaseError, DataError, DBAPIError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from gateway.db.cancel_handle import CancelHandle
from gateway.db.prepared import Prepared
from gateway.errors import DatabaseUnavailable
from gateway.patience import SLICES, ignore_error, is_done

READERS = 3
# Slow reports get their own threads.
PATIENT_READERS = 2
# A wait has this many parts. After each, the database is asked for a sign of life.
PARTS = 3
# The longest wait for a database that gives signs of life: six times `patience_seconds`.
MAX_PARTS = 6 * PARTS
# Includes a missing table, which means a missing migration: the database is not ready.
FAULTS = (DatabaseError, InterfaceError, PoolTimeout, OSError, TimeoutError)

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
Rows = Sequence[Mapping[str, Any]]


class Query(NamedTuple):
    """A statement, and the rows that are its input, if any (see `Database.rows`)."""

    statement: Executable
    rows: Rows | None = None

    @property
    def finds_nothing(self) -> bool:
        """Whether its input has no row."""
        return self.rows is not None and not self.rows


class Database(ABC):
    """Access to the tables. Each database that can be chosen is a subclass.

    A driver's calls block, so they run in threads: `writers` for transactions, and a few for reads
    outside of transactions, whose connections have the options `reading`. Slow reads get threads of
    their own, and so does the cancellation of queries that take too long.

    All methods raise `DatabaseUnavailable` when the database is unreachable, slow or not migrated.
    """

    # Without a database, requests fail within a second.
    patience_seconds = 0.9

    def __init__(
        self, url: URL, *, writers: int, reading: Mapping[str, Any], **options: Any
    ) -> None:
        size = writers + READERS + PATIENT_READERS
        self._engine = create_engine(
            url,
            pool_size=size,
            max_overflow=0,
            hide_parameters=True,  # errors are logged, and prompts are parameters
            **options,
        )
        # Inserted before SQLAlchemy's own queries on a first connection.
        event.listen(self._engine, "connect", CancelHandle.connected, insert=True)
        self._writers = ThreadPoolExecutor(writers, "database-writer")
        self._readers = ThreadPoolExecutor(READERS, "database-reader")
        self._patient_readers = ThreadPoolExecutor(PATIENT_READERS, "database-patient-reader")
        self._breakers = ThreadPoolExecutor(size, "database-breaker")
        self._reading = self._engine.execution_options(**reading)
        self._texts: dict[Executable, Prepared] = {}
        self._lived_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def transact(
        self, work: Work[Result], seconds: float | None = None, user_id: str | None = None
    ) -> Result:
        """The result of `work`, in a transaction that is committed, or rolled back on an exception.

        Rolled back if the caller times out after `seconds`, unless COMMIT has started. With
        `user_id`, `work` is on behalf of this user; see `for_user`.
        """

        def transaction(cancel_handle: CancelHandle) -> Result:
            with (
                self._engine.connect() as connection,
                cancel_handle.of(connection),
                connection.begin(),
            ):
                result = work(connection.execution_options(cancel_handle=cancel_handle))
                require_waiting(connection)
            self._require_kept()
            return result

        return await self._run(self._writers, transaction, seconds)

    async def retry_on_contention(
        self, transaction: Callable[[], Awaitable[Result]], tries: int, pause: float = 0
    ) -> Result:
        """The result of `transaction`, which waits for a lock with high contention.

        Retried after `pause` seconds when the lock times out, up to `tries` times in all: a long
        queue is not an outage.
        """
        for _ in range(tries - 1):
            try:
                return await transaction()
            except DatabaseUnavailable as error:
                if not self.is_contended(error):
                    raise
            await asyncio.sleep(pause)
        return await transaction()

    async def fetch(
        self,
        statement: Executable,
        parameters: Mapping[str, Any] | None = None,
        seconds: float | None = None,
    ) -> Sequence[Row[Any]]:
        """The rows of one reading statement, outside of any transaction.

        With `seconds`, a slow read: it may take that long, and has its own threads.
        """
        return await self._read(lambda db: self._rows(db, statement, parameters), seconds)

    def _rows(
        self, connection: Connection, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> Sequence[Row[Any]]:
        return connection.execute(statement, parameters).all()

    async def find(self, query: Query) -> Sequence[Any]:
        """As `fetch`, without SQLAlchemy's execution: for the queries of every request."""
        return await self._read(lambda db: self.read(db, [query])[0], None)

    async def _read(self, work: Work[Result], seconds: float | None) -> Result:
        def read(cancel_handle: CancelHandle) -> Result:
            with self._reading.connect() as connection, cancel_handle.of(connection):
                return work(connection)

        threads = self._patient_readers if seconds else self._readers
        return await self._run(threads, read, seconds)

    async def fetch_one(self, statement: Executable) -> Row[Any] | None:
        """The first row of one reading statement, or None."""
        rows = await self.fetch(statement)
        return rows[0] if rows else None

    @abstractmethod
    async def check(self) -> None:
        """Raise `DatabaseUnavailable` if the database does not answer or accepts no writes."""

    @abstractmethod
    async def create(self) -> None:
        """Create the container of the tables, such as a file, where that is the service's task."""

    @asynccontextmanager
    async def as_owner(self) -> AsyncIterator["Database"]:
        """The database as the owner of the tables, for migrations."""
        yield self

    def protect(self, connection: Connection) -> None:  # noqa: B027 - most databases have no more to do
        """Protect the tables that a migration made. Called in its transaction, as their owner."""

    async def exposure(self) -> str | None:
        """Why a user could be shown another's rows, and what to do; None if that cannot be."""
        return None

    @abstractmethod
    def absence(self) -> str | None:
        """Why there is no database to connect to, and what to do; None if there may be one."""

    @abstractmethod
    def _require_kept(self) -> None:
        """Raise `OSError` if the last commit is not in the database that later reads will open."""

    @staticmethod
    @abstractmethod
    def microseconds() -> ColumnElement[int]:
        """The database's clock in microseconds since 1970, when a statement reaches it."""

    @abstractmethod
    async def weakness(self) -> str | None:
        """Why a commit could be lost, and what to do; None if it could not."""

    @staticmethod
    @abstractmethod
    def rows(columns: Sequence[Column[Any]]) -> Mapping[str, ColumnElement[Any]]:
        """By name, the expressions of a statement for the columns of a `Query`'s rows.

        JSON documents in a row are text.
        """

    @staticmethod
    @abstractmethod
    def lock_timeout() -> ColumnElement[str]:
        """An expression that sets short lock time-outs when a statement selects it.

        The transaction then neither waits long for a lock nor, if this process hangs, keeps one.
        """

    @abstractmethod
    def is_contended(self, error: DatabaseUnavailable) -> bool:
        """Whether the database works, and only a lock timed out: a retry helps."""

    def read(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        """The rows of each query, with its columns as attributes.

        They are executed in order, in one round trip to a server; those without input are not.
        """
        asked = [query for query in queries if not query.finds_nothing]
        found = iter(self._execute(connection, asked))
        return [[] if query.finds_nothing else next(found) for query in queries]

    @abstractmethod
    def _execute(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        """The rows of each query, as `read`."""

    @abstractmethod
    def write_last(self, connection: Connection, queries: Sequence[Query]) -> None:
        """Execute the last statements of a transaction in order, and commit, in one round trip."""

    @abstractmethod
    def _sign_of_life(self, cancel_handle: CancelHandle) -> float:
        """When the database last showed activity, in seconds since 1970."""

    @abstractmethod
    def cancel_query(self, driver: Any) -> None:
        """Make the query on the driver's connection fail soon, here and in the database."""

    def _prepared(self, statement: Executable) -> Prepared:
        if statement not in self._texts:
            self._texts[statement] = Prepared(statement, self._engine)
        return self._texts[statement]

    def _fault(self, error: Exception) -> DBAPIError:
        """SQLAlchemy's exception for an `error` of the driver."""
        dialect = self._engine.dialect
        kind = dialect.loaded_dbapi.Error
        fault = DBAPIError.instance(None, None, error, kind, hide_parameters=True, dialect=dialect)
        assert isinstance(fault, DBAPIError), "an error of the driver"
        return fault

    async def close(self) -> None:
        """Wait for running work, then close every connection."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        for threads in (self._writers, self._readers, self._patient_readers, self._breakers):
            threads.shutdown()
        self._engine.dispose()

    async def _run(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[[CancelHandle], Result],
        seconds: float | None,
    ) -> Result:
        """The result of `work` in a thread. Raises `DatabaseUnavailable` if it takes too long."""
        cancel_handle = CancelHandle()

        def run() -> Result:
            with cancel_handle.here():
                return work(cancel_handle)

        running = asyncio.get_running_loop().run_in_executor(threads, run)
        try:
            await self._wait(running, seconds)
            return running.result()
        except (IntegrityError, DataError):
            raise
        except FAULTS as error:
            raise DatabaseUnavailable(
                "The database does not answer. Try again.", retry_after=1
            ) from error
        finally:
            cancel_handle.leave()
            if running.cancel():
                self._breakers.submit(cancel_handle.cancel_query, self.cancel_query)
            running.add_done_callback(ignore_error)

    async def _wait(self, running: asyncio.Future[Any], seconds: float | None) -> None:
        """Wait until `running` is done. Raises `TimeoutError` after `seconds`.

        Without `seconds`, raises it when the database gives no sign of life for `patience_seconds`:
        on a busy machine an answer may be late although the database works.
        """
        part = (seconds or self.patience_seconds) / PARTS
        since, silent = time.time(), 0
        for _ in range(PARTS if seconds else MAX_PARTS):
            if await is_done(running, part, SLICES // PARTS):
                return
            silent += 1
            if self._lived_at > since:
                since, silent = self._lived_at, 0
            if silent == PARTS:
                break
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
        raise TimeoutError

    async def _look(self) -> None:
        try:
            life = self._run(self._readers, self._sign_of_life, self.patience_seconds)
            self._lived_at = max(self._lived_at, await life)
        except DatabaseUnavailable:
            """There was no sign of life."""
        finally:
            self._looking = None


def require_waiting(connection: Connection) -> None:
    """Raise `TimeoutError` if the transaction of `connection` is no longer awaited."""
    connection.get_execution_options()["cancel_handle"].require_waiting()
