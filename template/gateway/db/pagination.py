"""Lists in pages, newest first, by ids that sort by time."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, Text, cast, func, literal

from gateway.db.engine import Database
from gateway.db.tables import Json
from gateway.errors import InvalidRequest
from gateway.ids import pattern

# In all documents of a page: reading and writing that much takes as long as a large request.
PAGE_CHARACTERS = 2 * 1024 * 1024


class Pages:
    """Reads pages. The cursor of the next page is the id of the last row of this one.

    A cursor is only compared with ids of the rows that the query selects: another user's id reveals
    nothing, and the row of a cursor may have been deleted meanwhile.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def read(
        self,
        rows: Select[Any],
        table: Table,
        limit: int,
        cursor: str | None,
        seconds: float | None = None,
    ) -> tuple[Sequence[Row[Any]], str | None]:
        """Up to `limit` of `rows` of `table`, and the cursor of the next page if there is one.

        The prefix of the table's ids is its `info["prefix"]`. A page of long documents is shorter.
        With `seconds`, a slow search: it may take that long, and has threads of its own.
        Raises `InvalidRequest` if the cursor is not an id of this table's form.
        """
        query = rows.order_by(table.c.id.desc()).limit(limit + 1)
        if cursor is not None:
            if not pattern(table.info["prefix"]).fullmatch(cursor):
                raise InvalidRequest("The cursor is not one of this list.", param="cursor")
            query = query.where(table.c.id < cursor)
        measured = query.with_only_columns(table.c.id, size_of(table))
        sizes = await self._database.fetch(measured, seconds=seconds)
        count = fitting([row.size for row in sizes], PAGE_CHARACTERS)
        chosen = [row.id for row in sizes[: min(limit, count)]]
        if not chosen:
            return [], None
        page = await self._database.fetch(query.where(table.c.id.in_(chosen)))
        more = len(sizes) > len(chosen)
        return page, chosen[-1] if more else None


def size_of(table: Table) -> ColumnElement[int]:
    """An expression, `size`, for the number of characters in a row's documents."""
    documents = [column for column in table.c if isinstance(column.type, Json | Text)]
    lengths = [func.coalesce(func.length(cast(each, Text)), 0) for each in documents]
    return sum(lengths, literal(0)).label("size")


def fitting(sizes: Sequence[int], characters: int) -> int:
    """The number of rows whose documents have so many characters together, at least one."""
    return max(1, sum(total <= characters for total in accumulate(sizes)))
