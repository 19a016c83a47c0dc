"""The caller's own records. Every query names the owner, so another's id is as good as none."""

import re
from typing import Any

from sqlalchemy import Row, Select, select, update

from app.db.engine import Database
from app.db.tables import predictions, utc_now
from app.errors import NotFound

PREDICTION_ID = re.compile(r"pred_[0-9a-f]{32}")


class Records:
    """The table of predictions as one user sees it."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str, prediction_id: str) -> Row[Any]:
        query = owned(user_id).where(predictions.c.id == prediction_id)
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


def owned(user_id: str) -> Select[Any]:
    """A user's records that were not erased."""
    return select(predictions).where(
        predictions.c.user_id == user_id, predictions.c.erased_at.is_(None)
    )
