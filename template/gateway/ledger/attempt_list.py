"""The attempts of predictions, as operators see them: their costs and failures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, select

from gateway.db.engine import Database
from gateway.db.tables import attempts


async def attempts_of(
    database: Database, prediction_ids: Sequence[str]
) -> Mapping[str, Sequence[Row[Any]]]:
    """The attempts of each prediction, in order. Raises `DatabaseUnavailable`."""
    query = (
        select(attempts)
        .where(attempts.c.prediction_id.in_(prediction_ids))
        .order_by(attempts.c.prediction_id, attempts.c.number)
    )
    made: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in await database.fetch(query):
        made[row.prediction_id].append(row)
    return made
