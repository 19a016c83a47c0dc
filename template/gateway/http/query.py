"""Refuses unknown query parameters, so that a misspelt filter is an error."""

from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from gateway.errors import UnsupportedParameter, shortened

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def require_known(request: Request, known: Collection[str] = ()) -> None:
    """Raise `UnsupportedParameter` for a query parameter that is not `known`."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            offered = f"there is {', '.join(sorted(known))}" if known else "there is none"
            raise UnsupportedParameter(
                f"The parameter {shortened(name)!r} is not supported in the query; {offered}.",
                param=name or None,
            )


class StrictRoute(APIRoute):
    """A route that refuses unknown query parameters."""

    def get_route_handler(self) -> Handler:
        handler, known = super().get_route_handler(), frozenset(_query_names(self.dependant))

        async def handle(request: Request) -> Response:
            require_known(request, known)
            return await handler(request)

        return handle


def _query_names(dependant: Dependant) -> Iterator[str]:
    """The parameters of the query that a route and what it depends on have."""
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _query_names(part)
