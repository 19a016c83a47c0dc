"""The route classes, and the parameters of lists and searches."""

import re
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Annotated, Any, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from pydantic import BeforeValidator, StringConstraints
from pydantic_core import PydanticKnownError
from sqlalchemy import Row, Select, Table

from app.dependencies import EngineDep, authenticate, get_context
from gateway.accounts.user_export import MEDIA_TYPE, UserExport
from gateway.engine import Engine
from gateway.http.query import require_known
from gateway.ledger.search import Search, search_of
from gateway.providers.base import Outcome
from gateway.schemas.base import NO_CONTROL, Moment, Page

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Entry = TypeVar("Entry")


def _digits(given: str) -> str:
    """`1_0` and `1.0` would be integers, too."""
    if re.fullmatch("-?[0-9]+", given):
        return given
    raise PydanticKnownError("int_parsing")


ModelName = Annotated[str, StringConstraints(max_length=200, pattern=NO_CONTROL)]
PageSize = Annotated[int, Query(ge=1, le=100), BeforeValidator(_digits)]
Rows = Sequence[Row[Any]]


class Paging:
    """The page of a list that a query asks for."""

    def __init__(self, engine: EngineDep, limit: PageSize = 20, cursor: str | None = None) -> None:
        self._pages = engine.pages
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


AskedPage = Annotated[Paging, Depends()]


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
    """What the query looks for; everything by default."""
    return search_of(model, outcome, rating, first, last)


AskedSearch = Annotated[Search, Depends(asked_search)]


class JsonLines(StreamingResponse):
    """One JSON object a line."""

    media_type = MEDIA_TYPE


def json_lines(engine: Engine, user: Row[Any]) -> JsonLines:
    """The export of a user, as a file."""
    name = f'attachment; filename="{user.id}.jsonl"'
    lines = UserExport(engine.database, user).lines()
    return JsonLines(lines, headers={"Content-Disposition": name, "Cache-Control": "no-store"})


# For the description: as the class has no media type, errors are described as JSON.
JSON_LINES: dict[int | str, dict[str, Any]] = {
    200: {"content": {MEDIA_TYPE: {"schema": {"type": "string"}}}}
}


class StrictRoute(APIRoute):
    """A route that refuses unknown query parameters, so that a misspelt filter is an error."""

    def get_route_handler(self) -> Handler:
        handler, known = super().get_route_handler(), frozenset(_query_names(self.dependant))

        async def handle(request: Request) -> Response:
            require_known(request, known)
            return await handler(request)

        return handle


class DirectRoute(APIRoute):
    """A route of a generation: its endpoint takes `body` and `context`, declared as usual.

    FastAPI describes it, and does not run it: its own handling of parameters and of the answer
    takes 13 % of the processor time of a chat. The body is read in bounds, after the log-in.
    """

    is_direct = True

    def get_route_handler(self) -> Handler:
        endpoint = self.endpoint
        schema = endpoint.__annotations__["body"]

        async def handle(request: Request) -> Response:
            context = await get_context(request, await authenticate(request))
            require_known(request)
            answer: Response = await endpoint(await context.read(schema), context)
            return answer

        return handle


def _query_names(dependant: Dependant) -> Iterator[str]:
    """The parameters of the query that a route and what it depends on have."""
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _query_names(part)
