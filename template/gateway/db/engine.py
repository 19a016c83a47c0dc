"""Transactions on the chosen database: short, bounded in time, with errors of our own."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from gateway.patience import SLICES, is_done, look_away

READERS = 3
# What may take long, as a report does, must not keep others from being read, or let in.
PATIENT_READERS = 2
# A third of its patience before the database is given up, it is asked for a sign of life.
PARTS = 3
# The longest that a database which is there is waited for: six times its patience.
MAX_PARTS = 6 * PARTS
# Also a missing table, which is a missing migration: for a client, the database is not ready.
FAULTS = (DatabaseError, InterfaceError, PoolTimeout, OSError, TimeoutError)

Result = TypeVar("Result")
Work = Callable[[Connection], Result]
Rows = Sequence[Mapping[str, Any]]


class Query(NamedTuple):
    """A statement, and the rows that stand in it, if any do (see `Database.rows`)."""

    statement: Executable
    rows: Rows | None = None


class Database(ABC):
    """The one way to the tables; each database that can be chosen is a subclass.

    A driver's calls block, so they run in threads: `writers` for transactions, a few for reading,
    which needs none: `reading` are the options of such connections. What is given more time to read
    has threads of its own, and what takes too long is broken off by others.

    Everything here raises `DatabaseUnavailable` when the database is gone, slow or not migrated.
    """

    # What is promised without a database: an error within a second.
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
        # Before SQLAlchemy asks a first connection what it needs to know of the server.
        event.listen(self._engine, "connect", CancelHandle.connected, insert=True)
        self._writers = ThreadPoolExecutor(writers, "database-writer")
        self._readers = ThreadPoolExecutor(READERS, "database-reader")
        self._patient_readers = ThreadPoolExecutor(PATIENT_READERS, "database-patient-reader")
        self._breakers = ThreadPoolExecutor(size, "database-breaker")
        self._reading = self._engine.execution_options(**reading)
        self._texts: dict[Executable, Prepared] = {}
        self._lived_at = 0.0
        self._looking: asyncio.Task[None] | None = None

    async def transact(self, work: Work[Result], seconds: float | None = None) -> Result:
        """What `work` returns; what it wrote is durable then, or rolled back by its exception.

        Who was told that it failed finds nothing of it later: it is rolled back as well when nobody
        waits for it any more. Only a commit that has begun by then may still come.
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
        """What `transaction` returns, in which many take turns at one lock.

        Who does not get it in time tries again after a `pause`, as a full queue is no outage.
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
        """The rows of one reading statement, outside of any transaction."""

        def read(cancel_handle: CancelHandle) -> Sequence[Row[Any]]:
            with self._reading.connect() as connection, cancel_handle.of(connection):
                return connection.execute(statement, parameters).all()

        threads = self._patient_readers if seconds else self._readers
        return await self._run(threads, read, seconds)

    async def find(self, query: Query) -> Sequence[Any]:
        """As `fetch`, past SQLAlchemy: for what every request asks."""

        def read(cancel_handle: CancelHandle) -> Sequence[Any]:
            with self._reading.connect() as connection, cancel_handle.of(connection):
                return self.read(connection, [query])[0]

        return await self._run(self._readers, read, None)

    async def fetch_one(self, statement: Executable) -> Row[Any] | None:
        """The first row of one reading statement."""
        rows = await self.fetch(statement)
        return rows[0] if rows else None

    @abstractmethod
    async def check(self) -> None:
        """Raise `DatabaseUnavailable` when the database does not answer, or takes no writes."""

    @abstractmethod
    async def create(self) -> None:
        """Make what the tables need to be made in, where that is the service's to do."""

    @abstractmethod
    def absence(self) -> str | None:
        """Why there is nothing to connect to, and what to do; None if there may be."""

    @abstractmethod
    def _require_kept(self) -> None:
        """Raise `OSError` when what was just committed is not where it is looked for later."""

    @staticmethod
    @abstractmethod
    def microseconds() -> ColumnElement[int]:
        """The database's clock, at the moment when a statement comes to it."""

    @abstractmethod
    async def weakness(self) -> str | None:
        """Why what was committed could be lost, and what to do; None if it could not."""

    @staticmethod
    @abstractmethod
    def rows(columns: Sequence[Column[Any]]) -> Mapping[str, ColumnElement[Any]]:
        """By name, what stands in a statement for the columns of the rows that a query gives it.

        A row's documents are given as text.
        """

    @staticmethod
    @abstractmethod
    def lock_timeout() -> ColumnElement[str]:
        """Selected by a statement, lets it and its transaction wait for no lock for long, nor keep
        one for long when this process falls silent.
        """

    @abstractmethod
    def is_contended(self, error: DatabaseUnavailable) -> bool:
        """Whether it is there, and only others kept a lock for too long: to try again helps."""

    @abstractmethod
    def read(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        """The rows of each query, with its columns as attributes.

        They are executed in order; where a server is asked, it is asked once.
        """

    @abstractmethod
    def write_last(self, connection: Connection, queries: Sequence[Query]) -> None:
        """Execute in order what a transaction ends with, and commit; as `read`, in one go."""

    @abstractmethod
    def _sign_of_life(self, cancel_handle: CancelHandle) -> float:
        """When the database last showed that it is at work, as a time since 1970."""

    @abstractmethod
    def cancel_query(self, driver: Any) -> None:
        """Let the work that uses the driver's connection fail soon, here and in the database."""

    def _prepared(self, statement: Executable) -> Prepared:
        if statement not in self._texts:
            self._texts[statement] = Prepared(statement, self._engine)
        return self._texts[statement]

    def _fault(self, error: Exception) -> DBAPIError:
        """What a driver raised past SQLAlchemy, as SQLAlchemy raises it."""
        dialect = self._engine.dialect
        kind = dialect.loaded_dbapi.Error
        fault = DBAPIError.instance(None, None, error, kind, hide_parameters=True, dialect=dialect)
        assert isinstance(fault, DBAPIError), "an error of the driver"
        return fault

    async def close(self) -> None:
        """Close every connection, when what runs has ended."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        for threads in (self._writers, self._readers, self._patient_readers, self._breakers):
            await asyncio.to_thread(threads.shutdown)
        self._engine.dispose()

    async def _run(
        self,
        threads: ThreadPoolExecutor,
        work: Callable[[CancelHandle], Result],
        seconds: float | None,
    ) -> Result:
        """What `work` returns in a thread, unless that takes too long."""
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
            running.add_done_callback(look_away)

    async def _wait(self, running: asyncio.Future[Any], seconds: float | None) -> None:
        """Until `running` is done. Raises `TimeoutError` after `seconds`.

        Without them, it does so when the database gives no sign of life for its patience: on a
        busy machine an answer may be late, and the database is there all the same.
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
            self._look_for_life()
        raise TimeoutError

    def _look_for_life(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            life = self._run(self._readers, self._sign_of_life, self.patience_seconds)
            self._lived_at = max(self._lived_at, await life)
        except DatabaseUnavailable:
            """None was found."""
        finally:
            self._looking = None


def require_waiting(connection: Connection) -> None:
    """Raise `TimeoutError` when nobody waits for the transaction of `connection` any more."""
    connection.get_execution_options()["cancel_handle"].require_waiting()
