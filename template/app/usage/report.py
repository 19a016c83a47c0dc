"""What a user spent, read from the ledger."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, case, func, select

from app.db.engine import Database
from app.db.tables import attempts, predictions
from app.usage.schemas import Period


class Report:
    """Sums over one user's rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def period(self, user_id: str, first: dt.date, last: dt.date) -> Period:
        """What was settled and is reserved from `first` to `last`, both included."""
        bound = case((attempts.c.state == "reserved", attempts.c.bound_nano_usd))
        query = select(
            func.coalesce(func.sum(attempts.c.cost_nano_usd), 0).label("spent_nano_usd"),
            func.coalesce(func.sum(bound), 0).label("reserved_nano_usd"),
        ).where(
            attempts.c.user_id == user_id,
            attempts.c.day.between(first.isoformat(), last.isoformat()),
        )
        sums = await self._database.fetch(query)
        return Period.model_validate(sums[0], from_attributes=True)

    async def lines(self, user_id: str, first: dt.date, last: dt.date) -> Sequence[Row[Any]]:
        """Requests, tokens and cost by day and model, newest day first."""
        columns = predictions.c
        query = (
            select(
                columns.day.label("date"),
                columns.model,
                func.count().label("requests"),
                func.sum(columns.input_tokens).label("input_tokens"),
                func.sum(columns.output_tokens).label("output_tokens"),
                func.sum(columns.cost_nano_usd).label("cost_nano_usd"),
            )
            .where(columns.user_id == user_id)
            .where(columns.day.between(first.isoformat(), last.isoformat()))
            .group_by(columns.day, columns.model)
            .order_by(columns.day.desc(), columns.model)
        )
        return await self._database.fetch(query)
