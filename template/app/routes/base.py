"""The route of a generation, and the parameters of lists and searches."""

from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute

from app.dependencies import EngineDep, authenticate, get_context
from gateway.http import lists
from gateway.http.query import Handler, require_known
from gateway.ledger.search import Search


async def asked_page(
    engine: EngineDep, limit: lists.PageSize = 20, cursor: str | None = None
) -> lists.AskedPage:
    """The page that a query asks for."""
    return lists.AskedPage(engine.pages, limit, cursor)


AskedPage = Annotated[lists.AskedPage, Depends(asked_page)]
AskedSearch = Annotated[Search, Depends(lists.asked_search)]


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
