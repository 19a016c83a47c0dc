"""Searches of predictions. Each condition has an index that ends in the id, the order of pages.

Most predictions succeed and few are rated, so the indexes of outcomes and ratings are partial: a
query names their condition. A search for what most predictions have needs no index of its own.
"""

import datetime as dt
from typing import Any, NamedTuple

from sqlalchemy import Select

from gateway.db.tables import HAS_FAILED, IS_RATED, predictions
from gateway.errors import InvalidRequest
from gateway.ids import id_at
from gateway.providers.base import Outcome

# A search reads more than a page if its conditions are rare together.
MAX_SECONDS = 10.0
# The most between the times of an id, which a process makes, and of its row: the longest deadline
# of a request, and what clocks may differ.
MARGIN = dt.timedelta(hours=2)
# The times that ids can express.
EARLIEST = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
LATEST = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)


class Search(NamedTuple):
    """What is looked for; None is anything. Times are from `first` to before `last`."""

    model: str | None = None
    outcome: Outcome | None = None
    rating: str | None = None
    first: dt.datetime | None = None
    last: dt.datetime | None = None

    @property
    def seconds(self) -> float | None:
        """The time that the query may take; None for that of other queries."""
        return MAX_SECONDS if any(self) else None

    def of(self, query: Select[Any]) -> Select[Any]:
        """The rows of `query` that are looked for."""
        columns = predictions.c
        if self.model is not None:
            query = query.where(columns.model == self.model)
        if self.outcome is not None:
            query = query.where(columns.outcome == self.outcome.value)
            if self.outcome is not Outcome.OK:
                query = query.where(HAS_FAILED)
        if self.rating is not None:
            query = query.where(columns.rating == self.rating, IS_RATED)
        return self._in_time(query)

    def _in_time(self, query: Select[Any]) -> Select[Any]:
        """Narrowed by time, and by id to a range of the index."""
        columns = predictions.c
        if self.first is not None:
            first = max(self.first, EARLIEST)
            query = query.where(
                columns.created_at >= first, columns.id >= id_at("pred", first - MARGIN)
            )
        if self.last is not None:
            last = min(self.last, LATEST)
            query = query.where(
                columns.created_at < last, columns.id < id_at("pred", last + MARGIN)
            )
        return query


def search_of(
    model: str | None,
    outcome: Outcome | None,
    rating: str | None,
    first: dt.datetime | None,
    last: dt.datetime | None,
) -> Search:
    """The search. Raises `InvalidRequest` if `first` is not before `last`."""
    if first is not None and last is not None and first >= last:
        raise InvalidRequest("from: must be before to.", param="from")
    return Search(model, outcome, rating, first, last)
