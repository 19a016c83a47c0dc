"""PostgreSQL, also behind a transaction pooler."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine

from app.db.engine import Database, Result, Work
from app.errors import StartError
from app.settings import Settings

SCHEMA = "app"
CONNECTIONS = 10
CONNECT_SECONDS = 3


class PostgresDatabase(Database):
    """The tables live in the schema `app`, away from what an API of the host may expose."""

    def __init__(self, url: str) -> None:
        self._engine = create_async_engine(
            url_of(url),
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=CONNECT_SECONDS,
            hide_parameters=True,  # errors are logged, and prompts are parameters
            # Prepared statements do not survive a transaction pooler.
            connect_args={"prepare_threshold": None, "connect_timeout": CONNECT_SECONDS},
            execution_options={"schema_translate_map": {None: SCHEMA}},
        )
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    async def transact_as(self, role: str, work: Work[Result]) -> Result:
        """As `transact`, acting as the database's `role` until the end of the transaction."""

        def assume(connection: Connection) -> Result:
            local = text("SELECT set_config('role', :role, true)")
            connection.execute(local, {"role": role})
            return work(connection)

        return await self.transact(assume)

    async def close(self) -> None:
        await self._engine.dispose()

    async def _write(self, work: Work[Result]) -> Result:
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def _read(self, work: Work[Result]) -> Result:
        async with self._reading.connect() as connection:
            return await connection.run_sync(work)


def open_database(settings: Settings) -> PostgresDatabase:
    """The database of `DATABASE_URL`. Raises `StartError` for an address that is wrong."""
    return PostgresDatabase(settings.database_url)


@asynccontextmanager
async def beside_others(_: Settings, __: Database) -> AsyncIterator[None]:
    """Any number of processes serve at once: nothing is to be held."""
    yield


def url_of(url: str) -> URL:
    """A URL as hosts hand it out (`postgres://`, `postgresql://`, `?host=/socket`) for psycopg."""
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StartError(
            "DATABASE_URL is not set or not a URL; use postgresql://user:password@host/database"
        ) from error
    if parsed.get_backend_name() not in {"postgres", "postgresql"}:
        raise StartError("DATABASE_URL must be a PostgreSQL address: postgresql://…")
    return parsed.set(drivername="postgresql+psycopg")
