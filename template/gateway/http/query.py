"""Refuses unknown query parameters, so that a misspelt filter is an error."""

from collections.abc import Collection

from fastapi import Request

from gateway.errors import UnsupportedParameter, shortened


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
