"""What the routes share: how a request becomes a call, and a generation an answer."""

import re
from collections.abc import Callable, Collection, Coroutine, Iterator
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator
from pydantic_core import PydanticKnownError, to_json

from app.dependencies import authenticate
from gateway.accounts.principals import Principal, Scope
from gateway.errors import InvalidRequest, UnsupportedParameter, shortened
from gateway.http.bodies import SMALL_BYTES, LargeBodies, parse
from gateway.idempotency.idempotency import Idempotency, Work
from gateway.idempotency.store import Key
from gateway.json_text import encode
from gateway.pipeline.generation import Call, Generation
from gateway.policy import Kind
from gateway.rate_limits.limits import Limits
from gateway.telemetry.context import note

JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.ASCII | re.IGNORECASE)
NO_JSON = {"type": "json_invalid", "loc": ("body",), "msg": "no JSON"}
LONGEST_KEY = 255
Body = TypeVar("Body", bound=BaseModel)


def _digits(given: str) -> str:
    """`1_0` and `1.0` would be integers, too."""
    if re.fullmatch("-?[0-9]+", given):
        return given
    raise PydanticKnownError("int_parsing")


PageSize = Annotated[int, Query(ge=1, le=100), BeforeValidator(_digits)]


class StrictRoute(APIRoute):
    """A route that refuses unknown query parameters, so that a misspelt filter is an error."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler, known = super().get_route_handler(), frozenset(_query_names(self.dependant))

        async def handle(request: Request) -> Response:
            _require_known(request, known)
            return await handler(request)

        return handle


class DirectRoute(APIRoute):
    """A route whose endpoint takes a request and answers it, with nothing in between.

    FastAPI's own handler first looks for parameters and last for something to serialise, which
    counts on the path that must be fast.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


class Asking:
    """A generation that an authenticated request asks for."""

    def __init__(self, request: Request, caller: Principal) -> None:
        self.request = request
        self.caller = caller
        self._is_large = False

    async def read(self, schema: type[Body]) -> Body:
        """The request's body. Raises what `parse` raises."""
        if not JSON_TYPE.match(self.request.headers.get("content-type", "")):
            raise RequestValidationError([NO_JSON])
        bodies: LargeBodies = self.request.app.state.large_bodies
        raw = await bodies.read(self.request, self.caller.user_id)
        self._is_large = len(raw) > SMALL_BYTES
        if self._key() is None:
            await self._look()
        return parse(raw, schema)

    def call(
        self, kind: Kind, model: str, body: dict[str, Any], seconds: float | None = None
    ) -> Call:
        """A call within `seconds`. Raises `InvalidRequest` for what cannot be sent or kept."""
        try:
            is_finite = to_json(body) == encode(body)
        except ValueError as error:
            raise InvalidRequest(
                "The body is nested too deeply, or its text is not valid Unicode."
            ) from error
        if not is_finite:
            raise InvalidRequest("A number of the body is not finite.")
        seconds = seconds or self.request.app.state.settings.request_deadline_seconds
        request_id = self.request.state.request_id
        return Call(self.caller, kind, model, body, request_id, seconds, self._key())

    async def once(self, body: BaseModel, work: Work, *, later: bool = False) -> Response:
        """What `work` answers to `body`, or answered before to the same `Idempotency-Key`.

        `later` says that nobody waits for the generation.
        """
        name = self._key()
        if name is None:
            return await work()
        self.caller.require(Scope.GENERATE)
        idempotency: Idempotency = self.request.app.state.engine.idempotency
        key = Key(self.caller.user_id, self.request.scope["route"].path, name)

        async def limited() -> Response:
            await self._look()
            return await work()

        return await idempotency.answer(key, [body, later], limited)

    async def _look(self) -> None:
        """Raise `RateLimited` for a large body of which nothing can come, before it costs more.

        With an `Idempotency-Key`, a replay comes before the limits.
        """
        if self._is_large:
            limits: Limits = self.request.app.state.engine.limits
            await limits.look(self.caller)

    def _key(self) -> str | None:
        key = self.request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            raise InvalidRequest(
                f"Idempotency-Key: must have 1 to {LONGEST_KEY} characters.",
                param="idempotency-key",
            )
        return key


async def asking(request: Request) -> Asking:
    """The context of a generation. Raises `InvalidCredentials`, `UnsupportedParameter`."""
    caller = await authenticate(request)
    _require_known(request)
    note(route=request.scope["route"].path)
    return Asking(request, caller)


def _query_names(dependant: Dependant) -> Iterator[str]:
    """The parameters of the query that a route and what it depends on have."""
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _query_names(part)


def _require_known(request: Request, known: Collection[str] = ()) -> None:
    """Raise `UnsupportedParameter` for one of the query that is not `known`."""
    if not request.scope["query_string"]:
        return
    for name in request.query_params:
        if name not in known:
            there_is = f"there is {', '.join(sorted(known))}" if known else "there is none"
            raise UnsupportedParameter(
                f"The parameter {shortened(name)!r} is not supported in the query; {there_is}.",
                param=name or None,
            )


def takes(schema: type[BaseModel]) -> dict[str, Any]:
    """What the API's description says of a route that reads its body by `Asking.read`."""
    key = {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same request with the same key gets the first answer again, for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
    }
    reference = "#/components/schemas/{model}"
    content = {"schema": schema.model_json_schema(ref_template=reference)}
    return {
        "parameters": [key],
        "requestBody": {"required": True, "content": {"application/json": content}},
    }


def answer(generation: Generation, content: Any) -> Response:
    """An answer in one piece, under the public name of the model that served."""
    body = encode({**content, "model": generation.model.id})
    return Response(body, media_type="application/json", headers=generation.headers)
