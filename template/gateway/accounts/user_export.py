"""Everything about one user as JSON lines, in memory that does not grow with the rows."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy import Row, select

from gateway.accounts.holdings import (
    BATCH_CHARACTERS,
    MAX_SECONDS,
    ROWS_AT_ONCE,
    Holding,
    holdings_of,
)
from gateway.db.engine import Database
from gateway.db.pagination import fitting

MEDIA_TYPE = "application/x-ndjson"


class UserExport:
    """The export of a user. Its methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, user: Row[Any]) -> None:
        self._database = database
        self._holdings = list(holdings_of(user))

    async def count(self) -> int:
        """The number of rows that there are now."""
        return sum([await holding.size(self._database) for holding in self._holdings])

    async def batches(self) -> AsyncIterator[Sequence[bytes]]:
        """The lines in batches: one for each row with its table, and at the end their number."""
        count = 0
        for holding in self._holdings:
            async for rows in _batches(self._database, holding):
                yield [_line(holding.table.name, row._asdict()) for row in rows]
                count += len(rows)
        yield [_line("end", {"rows": count})]

    async def lines(self) -> AsyncIterator[bytes]:
        """The batches, each as one piece of an answer."""
        async for batch in self.batches():
            yield b"".join(batch)


async def _batches(database: Database, holding: Holding) -> AsyncIterator[Sequence[Row[Any]]]:
    """The rows of a holding in the order of their keys. A batch of long documents is shorter."""
    last: Sequence[Any] = ()
    while keys := await database.fetch(holding.keys(last, ROWS_AT_ONCE), seconds=MAX_SECONDS):
        chosen = keys[: fitting([key.size for key in keys], BATCH_CHARACTERS)]
        which = holding.mine, holding.among([key[:-1] for key in chosen])
        query = select(*holding.shown).where(*which).order_by(*holding.key)
        yield await database.fetch(query, seconds=MAX_SECONDS)
        last = chosen[-1][:-1]


def _line(kind: str, values: dict[str, Any]) -> bytes:
    return to_json({"type": kind, **values}, inf_nan_mode="null") + b"\n"
