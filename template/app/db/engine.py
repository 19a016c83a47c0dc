"""Transactions on the chosen database: short, bounded in time, with errors of our own."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Executable, Row, text
from sqlalchemy.exc import InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.errors import DatabaseUnavailable

TIMEOUT_SECONDS = 5.0
# A missing table is a missing migration: for a client, the database is not ready.
FAULTS = (OperationalError, InterfaceError, ProgrammingError, PoolTimeout, OSError, TimeoutError)


class Database:
    """The one way to the tables; each database that can be chosen is a subclass.

    Everything here raises `DatabaseUnavailable` when the database is gone, slow or not migrated.
    """

    def __init__(self, engine: AsyncEngine, **read_options: Any) -> None:
        self.engine = engine
        self._reads = engine.execution_options(**read_options)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that is durable when this context ends, or rolled back by an exception."""
        async with _bounded(), self.engine.begin() as connection:
            yield connection

    async def fetch(self, statement: Executable) -> Sequence[Row[Any]]:
        """The rows of one reading statement, outside of any transaction."""
        async with _bounded(), self._reads.connect() as connection:
            return (await connection.execute(statement)).all()

    async def fetch_one(self, statement: Executable) -> Row[Any] | None:
        """The first row of one reading statement."""
        rows = await self.fetch(statement)
        return rows[0] if rows else None

    async def check(self) -> None:
        """Raise `DatabaseUnavailable` when the database does not answer."""
        await self.fetch(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


@asynccontextmanager
async def _bounded() -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TIMEOUT_SECONDS):
            yield
    except FAULTS as error:
        raise DatabaseUnavailable(
            "The database does not answer, so nothing is generated. Try again.", retry_after=1
        ) from error
