"""Parts of the input that providers reported and `models.toml` has no price line for."""

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sqlalchemy import func, or_, select

from gateway.db.engine import Database
from gateway.db.tables import predictions, utc_now
from gateway.ids import earliest_id
from gateway.ledger.usage_report import MAX_SECONDS
from gateway.policy import Model
from gateway.prices import DeclaredLines

LAST_DAYS = 7
# Each part, its price line, and its price without one.
PARTS = {
    "cached_input_tokens": ("cached_input_usd_per_million_tokens", "as input"),
    "cache_write_tokens": ("cache_write_usd_per_million_tokens", "at 1.25 times the input's price"),
}


class Undeclared(NamedTuple):
    """A part whose price `line` is missing, and the tokens that the provider reported of it."""

    model: str
    part: str
    tokens: int
    line: str
    billed: str


async def undeclared(database: Database, models: Mapping[str, Model]) -> list[Undeclared]:
    """The parts of the last LAST_DAYS days. Raises `DatabaseUnavailable`."""
    first = utc_now().date() - dt.timedelta(days=LAST_DAYS)
    columns = [predictions.c[part] for part in PARTS]
    query = (
        select(
            predictions.c.served_model,
            *(func.sum(column).label(column.name) for column in columns),
        )
        .where(
            predictions.c.id >= earliest_id("pred", first),
            or_(*(column > 0 for column in columns)),
        )
        .group_by(predictions.c.served_model)
        .order_by(predictions.c.served_model)
    )
    rows = await database.fetch(query, seconds=MAX_SECONDS)
    known = (
        (models[row.served_model], row._asdict()) for row in rows if row.served_model in models
    )
    return [found for model, tokens in known for found in _missing(model, tokens)]


def _missing(model: Model, tokens: Mapping[str, int]) -> Iterator[Undeclared]:
    lists: list[DeclaredLines] = [model, *model.tiers]
    for part, (line, billed) in PARTS.items():
        if tokens[part] and any(getattr(each, line) is None for each in lists):
            yield Undeclared(model.id, part, int(tokens[part]), line, billed)
