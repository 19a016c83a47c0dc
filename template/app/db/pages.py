"""Lists in pages, newest first, by ids that sort by time."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, Select, Table

from app.db.engine import Database
from app.errors import InvalidRequest
from app.signing import Signer


class Pages:
    """Reads pages. A cursor is signed, so that none can be made up or taken to another list."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer

    async def read(
        self, rows: Select[Any], table: Table, limit: int, cursor: str | None
    ) -> tuple[Sequence[Row[Any]], str | None]:
        """Up to `limit` of `rows` of `table`, and the cursor of the next page if there is one."""
        query = rows.order_by(table.c.id.desc()).limit(limit + 1)
        if cursor is not None:
            last = self._signer.verify(table.name, cursor)
            if last is None:
                raise InvalidRequest("The cursor is not one of this list.", param="cursor")
            query = query.where(table.c.id < last)
        page = await self._database.fetch(query)
        more = len(page) > limit
        return page[:limit], self._signer.sign(table.name, page[limit - 1].id) if more else None
