"""The parameters of lists and searches."""

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Query
from pydantic import BeforeValidator, StringConstraints
from pydantic_core import PydanticKnownError
from sqlalchemy import Row, Select, Table

from gateway.db.pagination import Pages
from gateway.ledger.search import Search, search_of
from gateway.providers.base import Outcome
from gateway.schemas.base import NO_CONTROL, Moment, Page

Entry = TypeVar("Entry")


def _digits(given: str) -> str:
    """`1_0` and `1.0` would be integers, too."""
    if re.fullmatch("-?[0-9]+", given):
        return given
    raise PydanticKnownError("int_parsing")


ModelName = Annotated[str, StringConstraints(max_length=200, pattern=NO_CONTROL)]
PageSize = Annotated[int, Query(ge=1, le=100), BeforeValidator(_digits)]
Rows = Sequence[Row[Any]]


class AskedPage:
    """The page of a list that a query asks for."""

    def __init__(self, pages: Pages, limit: int, cursor: str | None) -> None:
        self._pages = pages
        self._limit = limit
        self._cursor = cursor

    async def rows(
        self, query: Select[Any], table: Table, seconds: float | None = None
    ) -> tuple[Rows, str | None]:
        """The rows of the page, and the cursor of the next one. Raises as `Pages.read`."""
        return await self._pages.read(query, table, self._limit, self._cursor, seconds)

    async def of(
        self,
        shown: Callable[[Row[Any]], Entry],
        query: Select[Any],
        table: Table,
        seconds: float | None = None,
    ) -> Page[Entry]:
        """The page, with each row as `shown` makes it."""
        rows, next_cursor = await self.rows(query, table, seconds)
        return Page(data=[shown(row) for row in rows], next_cursor=next_cursor)


async def asked_search(
    model: Annotated[ModelName | None, Query(description="The public name of a model.")] = None,
    outcome: Outcome | None = None,
    rating: Literal["up", "down"] | None = None,
    first: Annotated[
        Moment | None, Query(alias="from", description="The earliest time of a request.")
    ] = None,
    last: Annotated[
        Moment | None, Query(alias="to", description="The first time that is too late.")
    ] = None,
) -> Search:
    """The search that a query asks for; everything by default."""
    return search_of(model, outcome, rating, first, last)
