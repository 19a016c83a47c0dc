"""The caller's own records. Another user's id is a 404: every query names the owner."""

from typing import Any

from sqlalchemy import Connection, Row, Select, Update, select, update

from gateway.db.engine import Database
from gateway.db.tables import for_user, predictions, utc_now
from gateway.errors import NotFound
from gateway.idempotency.store import erasing
from gateway.ids import pattern

PREDICTION_ID = pattern("pred")
# The columns that hold content, without it.
ERASED = dict.fromkeys(("input", "output", "error", "feedback", "rating"))


class Records:
    """The predictions of one user. All methods raise `NotFound` and `DatabaseUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: str, prediction_id: str) -> Row[Any]:
        """A prediction that was not erased."""
        return await _find(self._database, owned(user_id), prediction_id)

    async def rate(self, user_id: str, prediction_id: str, feedback: dict[str, Any]) -> None:
        """Store the user's feedback on an answer, in place of earlier feedback."""
        rating = feedback["rating"]
        rated = _changing(user_id, prediction_id, feedback=feedback, rating=rating)
        kept = rated.where(predictions.c.erased_at.is_(None))  # It may be erased meanwhile.
        await self._change(user_id, prediction_id, kept)

    async def erase(self, user_id: str, prediction_id: str) -> None:
        """Remove the content, also from replays. The cost stays in the ledger."""
        erased = _changing(user_id, prediction_id, **ERASED, erased_at=utc_now())
        await self._change(user_id, prediction_id, erased, erasing([prediction_id]))

    async def _change(self, user_id: str, prediction_id: str, *changes: Update) -> None:
        await self.get(user_id, prediction_id)

        def work(connection: Connection) -> None:
            for change in changes:
                connection.execute(change)

        await self._database.transact(work, user_id=user_id)


async def prediction_of_any_user(database: Database, prediction_id: str) -> Row[Any]:
    """For operators: a prediction, erased or not. Raises `NotFound` and `DatabaseUnavailable`."""
    return await _find(database, select(predictions), prediction_id)


async def _find(database: Database, among: Select[Any], prediction_id: str) -> Row[Any]:
    query = among.where(predictions.c.id == prediction_id)
    known = PREDICTION_ID.fullmatch(prediction_id)
    row = await database.fetch_one(query) if known else None
    if row is None:
        raise NotFound("There is no such prediction.")
    return row


def _changing(user_id: str, prediction_id: str, **values: Any) -> Update:
    own = predictions.c.id == prediction_id, predictions.c.user_id == user_id
    return update(predictions).where(*own).values(**values)


def owned(user_id: str) -> Select[Any]:
    """A user's records that were not erased."""
    own = predictions.c.user_id == user_id, predictions.c.erased_at.is_(None)
    return for_user(select(predictions).where(*own), user_id)
