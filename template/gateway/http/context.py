"""The context of a generation: the request that asks for it, its user and the engine."""

import re
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from pydantic_core import to_json

from gateway.accounts.principals import Principal, Scope
from gateway.engine import Engine
from gateway.errors import InvalidRequest
from gateway.http.bodies import SMALL_BYTES, parse
from gateway.idempotency.idempotency import Work
from gateway.idempotency.store import Key
from gateway.json_text import encode
from gateway.pipeline.generation import Call, Generation
from gateway.policy import Kind

JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.ASCII | re.IGNORECASE)
NO_JSON = {"type": "json_invalid", "loc": ("body",), "msg": "no JSON"}
MAX_KEY_CHARS = 255
Body = TypeVar("Body", bound=BaseModel)


class GenerationContext:
    """What the routes of generations share: a body becomes a call, a generation an answer."""

    def __init__(self, request: Request, user: Principal, engine: Engine) -> None:
        self.request = request
        self.user = user
        self.engine = engine
        self._is_large = False

    async def read(self, schema: type[Body]) -> Body:
        """The request's body. Raises what `parse` raises, and `RateLimited` for a large one."""
        if not JSON_TYPE.match(self.request.headers.get("content-type", "")):
            raise RequestValidationError([NO_JSON])
        raw = await self.engine.large_bodies.read(self.request, self.user.user_id)
        self._is_large = len(raw) > SMALL_BYTES
        if self._key() is None:
            await self._check_limits()
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
        seconds = seconds or self.engine.config.request_deadline_seconds
        request_id = self.request.state.request_id
        return Call(self.user, kind, model, body, request_id, seconds, self._key())

    async def idempotent(self, body: BaseModel, work: Work, *, later: bool = False) -> Response:
        """What `work` answers to `body`, or answered before to the same `Idempotency-Key`.

        `later` says that the client does not wait for the generation. Raises what
        `Idempotency.answer` raises.
        """
        name = self._key()
        if name is None:
            return await work()
        self.user.require(Scope.GENERATE)
        key = Key(self.user.user_id, self.request.scope["route"].path, name)

        async def limited() -> Response:
            await self._check_limits()
            return await work()

        return await self.engine.idempotency.answer(key, [body, later], limited)

    async def _check_limits(self) -> None:
        """Raise `RateLimited` for a large body that would be refused, before it costs more.

        With an `Idempotency-Key`, a replay comes before the limits.
        """
        if self._is_large:
            await self.engine.limits.look(self.user)

    def _key(self) -> str | None:
        key = self.request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
            raise InvalidRequest(
                f"Idempotency-Key: must have 1 to {MAX_KEY_CHARS} characters.",
                param="idempotency-key",
            )
        return key


def json_answer(generation: Generation, content: Any) -> Response:
    """An answer in one piece, under the public name of the model that served."""
    body = encode({**content, "model": generation.model.id})
    return Response(body, media_type="application/json", headers=generation.headers)
