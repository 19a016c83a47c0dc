"""Sends all errors in one format: the service's own, and those of Starlette and FastAPI."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, Route

from gateway.errors import ErrorBody, IdempotencyMismatch, ServiceError, error_body, log_cause
from gateway.http.error_places import note_error, place_of
from gateway.idempotency.idempotency import Replay

# The status, code and message for errors that Starlette and FastAPI raise.
FRAMEWORK_ERRORS = {
    400: (422, "invalid_request", "The body could not be read; send valid JSON in UTF-8."),
    404: (404, "not_found", "There is nothing at this address; see /docs."),
    405: (405, "method_not_allowed", "This address does not support this method; see /docs."),
    408: (408, "invalid_request", "The body took too long to arrive; send it again."),
    413: (413, "body_too_large", "The body is too large for this address; send less."),
}
# OpenAI's clients expect 400 for an invalid request.
OPENAI_ROUTES = re.compile(r"/v1/(?:chat/completions|responses|embeddings|models)(?:/|$)")


def install(app: FastAPI) -> None:
    """Make `app` send all errors in one format."""
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(Replay, _replay)


async def _replay(_: Request, replay: Any) -> Response:
    response: Response = replay.response
    return response


async def _service_error(request: Request, error: Any) -> JSONResponse:
    log_cause(error)
    if error.begun and (recorded := getattr(request.state, "answer", None)):
        await recorded.end()
    status = _status(request, error.status, error.code)
    return _answer(error.body(), status, error.headers)


async def _validation_error(request: Request, error: Any) -> JSONResponse:
    """Name the first wrong field and its error, never the input."""
    path, first = place_of(error.errors(), error.body)
    code, message = "invalid_request", f"{path}: {first['msg']}."
    if first["type"] == "extra_forbidden":
        code, message = "unsupported_parameter", f"The parameter {path!r} is not supported."
    elif first["type"] == "json_invalid" or not path:
        path, message = "", "The body must be a JSON object (Content-Type: application/json)."
    return _answer(error_body(422, code, message, path or None), _status(request, 422))


async def _framework_error(request: Request, error: Any) -> JSONResponse:
    default = (error.status_code, "invalid_request", str(error.detail))
    status, code, message = FRAMEWORK_ERRORS.get(error.status_code, default)
    status = _status(request, status)
    headers = {"Allow": _methods(request)} if status == 405 else error.headers
    return _answer(error_body(status, code, message, None), status, headers)


def _answer(body: ErrorBody, status: int, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer. Its code and parameter also go into the log line of the request."""
    note_error(body["error"]["code"], body["error"]["param"])
    return JSONResponse(body, status, headers)


def _status(request: Request, status: int, code: str = "") -> int:
    """400 instead of 422 on OpenAI's routes, except for a mismatch, which OpenAI does not have."""
    is_wrong = status == 422 and code != IdempotencyMismatch.code
    return 400 if is_wrong and OPENAI_ROUTES.match(request.scope["path"]) else status


def _methods(request: Request) -> str:
    """The methods of all routes at the address: each method has its own route."""
    routes = all_routes(request.app.routes)
    here = [route for route in routes if route.matches(request.scope)[0] is not Match.NONE]
    return ", ".join(sorted({method for route in here for method in route.methods or ()}))


def all_routes(listed: Iterable[BaseRoute]) -> Iterator[Route]:
    """Each route, also of the routers that an application includes."""
    for route in listed:
        if isinstance(route, Route):
            yield route
        elif router := getattr(route, "original_router", None):
            yield from all_routes(router.routes)
