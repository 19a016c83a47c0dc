"""Transactions on the chosen database: short, bounded in time, with errors of our own."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from sqlalchemy import Connection, Executable, Row, text
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.errors import DatabaseUnavailable

TIMEOUT_SECONDS = 5.0
# Also a missing table, which is a missing migration: for a client, the database is not ready.
FAULTS = (DatabaseError, InterfaceError, PoolTimeout, OSError, TimeoutError)

Result = TypeVar("Result")
Work = Callable[[Connection], Result]


class Database(ABC):
    """The one way to the tables; each database that can be chosen is a subclass.

    Everything here raises `DatabaseUnavailable` when the database is gone, slow or not migrated.
    """

    async def transact(self, work: Work[Result], seconds: float = TIMEOUT_SECONDS) -> Result:
        """What `work` returns; what it wrote is durable then, or rolled back by its exception."""
        async with _bounded(seconds):
            return await self._write(work)

    async def fetch(
        self, statement: Executable, parameters: Mapping[str, Any] | None = None
    ) -> Sequence[Row[Any]]:
        """The rows of one reading statement, outside of any transaction."""
        async with _bounded(TIMEOUT_SECONDS):
            return await self._read(lambda reader: reader.execute(statement, parameters).all())

    async def fetch_one(self, statement: Executable) -> Row[Any] | None:
        """The first row of one reading statement."""
        rows = await self.fetch(statement)
        return rows[0] if rows else None

    async def check(self) -> None:
        """Raise `DatabaseUnavailable` when the database does not answer."""
        await self.fetch(text("SELECT 1"))

    @abstractmethod
    async def close(self) -> None:
        """Close every connection."""

    @abstractmethod
    async def _write(self, work: Work[Result]) -> Result:
        """Do `work` in a durable transaction."""

    @abstractmethod
    async def _read(self, work: Work[Result]) -> Result:
        """Do `work` without a transaction."""


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except (IntegrityError, DataError):
        raise
    except FAULTS as error:
        raise DatabaseUnavailable(
            "The database does not answer, so nothing is generated. Try again.", retry_after=1
        ) from error
