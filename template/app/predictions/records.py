"""The caller's own records. Every query names the owner, so another's id is as good as none."""

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, select, update

from app.db.engine import Database
from app.db.tables import predictions, utc_now
from app.errors import InvalidRequest, NotFound
from app.signing import Signer

PREDICTION_ID = re.compile(r"pred_[0-9a-f]{32}")


class Records:
    """The table of predictions as one user sees it."""

    def __init__(self, database: Database, signer: Signer) -> None:
        self._database = database
        self._signer = signer

    async def list(
        self, user_id: str, limit: int, cursor: str | None
    ) -> tuple[Sequence[Row[Any]], str | None]:
        """Up to `limit` rows, newest first, and the cursor of the next page if there is one."""
        query = _owned(user_id).order_by(predictions.c.id.desc()).limit(limit + 1)
        if cursor is not None:
            last = self._signer.verify("cursor", cursor)
            if last is None:
                raise InvalidRequest("The cursor is not one of this service.", param="cursor")
            query = query.where(predictions.c.id < last)
        rows = await self._database.fetch(query)
        more = len(rows) > limit
        return rows[:limit], self._signer.sign("cursor", rows[limit - 1].id) if more else None

    async def get(self, user_id: str, prediction_id: str) -> Row[Any]:
        query = _owned(user_id).where(predictions.c.id == prediction_id)
        known = PREDICTION_ID.fullmatch(prediction_id)
        row = await self._database.fetch_one(query) if known else None
        if row is None:
            raise NotFound("There is no such prediction.")
        return row

    async def rate(self, user_id: str, prediction_id: str, feedback: dict[str, Any]) -> None:
        """Keep what the user thinks of an answer, in place of what was thought before."""
        await self._change(user_id, prediction_id, feedback=feedback)

    async def erase(self, user_id: str, prediction_id: str) -> None:
        """Remove the content; what it cost stays in the ledger."""
        nothing = {"input": None, "output": None, "error": None, "feedback": None}
        await self._change(user_id, prediction_id, **nothing, erased_at=utc_now())

    async def _change(self, user_id: str, prediction_id: str, **values: Any) -> None:
        await self.get(user_id, prediction_id)
        own = predictions.c.id == prediction_id, predictions.c.user_id == user_id
        change = update(predictions).where(*own).values(**values)
        await self._database.transact(lambda connection: connection.execute(change))


def _owned(user_id: str) -> Any:
    return select(predictions).where(
        predictions.c.user_id == user_id, predictions.c.erased_at.is_(None)
    )
