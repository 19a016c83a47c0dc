"""The context of a generation in a route: the HTTP request, its user and the engine."""

import hashlib
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel

from gateway.accounts.principals import Principal, Scope
from gateway.engine import Engine
from gateway.errors import InvalidRequest
from gateway.gateway import Gateway
from gateway.http.bodies import SMALL_BYTES, parse
from gateway.idempotency.idempotency import RecordedAnswer
from gateway.idempotency.store import Claim, IdempotencyKey
from gateway.json_text import encode
from gateway.pipeline.generation import Generation, GenerationRequest, require_sendable
from gateway.policy import Kind

JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;|$)", re.ASCII | re.IGNORECASE)
NO_JSON = {"type": "json_invalid", "loc": ("body",), "msg": "no JSON"}
MAX_KEY_CHARS = 255
MAX_FEATURE_CHARS = 100
Body = TypeVar("Body", bound=BaseModel)


class GenerationContext:
    """Shared by the routes of generations: turns a body into a `GenerationRequest`."""

    def __init__(self, request: Request, user: Principal, engine: Engine) -> None:
        self.request = request
        self.user = user
        self.engine = engine
        self._is_large = False

    async def read(self, schema: type[Body]) -> Body:
        """The request's body. Raises as `parse`, and `RateLimited` early for a large body."""
        raw = await self.engine.large_bodies.read(self.request, self.user.user_id)
        if not JSON_TYPE.match(self.request.headers.get("content-type", "")):
            raise RequestValidationError([NO_JSON])
        self._is_large = len(raw) > SMALL_BYTES
        if self._key() is None:
            await self._check_limits()
        return parse(raw, schema)

    def call(
        self, kind: Kind, model: str, body: dict[str, Any], seconds: float | None = None
    ) -> GenerationRequest:
        """The request for a generation within `seconds`.

        Raises `InvalidRequest` for a body that cannot be sent or stored.
        """
        require_sendable(body)
        seconds = seconds or self.engine.config.request_deadline_seconds
        request_id = self.request.state.request_id
        return GenerationRequest(self.user, kind, model, body, request_id, seconds, self._key())

    async def idempotent(
        self, body: BaseModel, work: Callable[[], Awaitable[Response]], *, later: bool = False
    ) -> Response:
        """The answer of `work`, which runs once for an `Idempotency-Key`.

        With `later`, the client does not wait for the generation. Raises as `Idempotency.acquire`,
        and what `work` raises.
        """
        if (name := self._key()) is not None:
            self._record(await self._claim(name, [body, later]))
            await self._check_limits()
        return await work()

    async def gateway(self) -> Gateway:
        """The gateway for an owner's route, which runs once for each `Idempotency-Key`.

        The feature of its records is the route's path without `/v1/`. Raises as
        `Idempotency.acquire`.
        """
        claim, request = None, self.request
        if (name := self._key()) is not None:
            asked = [request.method, str(request.url.query), await self._digest()]
            claim = await self._claim(name, [*asked, request.path_params])
        answer = self._record(claim)
        return Gateway(
            self.engine.pipeline,
            self.engine.policy,
            self.user,
            feature=self._path.removeprefix("/v1").strip("/")[:MAX_FEATURE_CHARS],
            seconds=self.engine.config.request_deadline_seconds,
            request_id=request.state.request_id,
            idempotency_key=name,
            on_begin=answer.on_begin,
            receive=request.receive,
        )

    async def _claim(self, name: str, asked: list[Any]) -> Claim:
        self.user.require(Scope.GENERATE)
        key = IdempotencyKey(self.user.user_id, self._path, name)
        return await self.engine.idempotency.acquire(key, asked)

    def _record(self, claim: Claim | None) -> RecordedAnswer:
        """Let the middleware process the answer to this request."""
        answer = self.request.state.answer = RecordedAnswer(self.engine.idempotency, claim)
        return answer

    @property
    def _path(self) -> str:
        path: str = self.request.scope["route"].path
        return path

    async def _digest(self) -> str:
        """A digest of the body. Raises `InvalidRequest` for a form, which FastAPI has consumed."""
        try:
            return hashlib.sha256(await self.request.body()).hexdigest()
        except RuntimeError as error:
            raise InvalidRequest(
                "Idempotency-Key: not supported for forms; send JSON.", param="idempotency-key"
            ) from error

    async def _check_limits(self) -> None:
        """Raise `RateLimited` for a large body if the user's limits are used up.

        `read` calls this before it parses the body. With an `Idempotency-Key`, `idempotent` calls
        it instead, after the look-up of a stored answer.
        """
        if self._is_large:
            await self.engine.limits.peek(self.user)

    def _key(self) -> str | None:
        key = self.request.headers.get("idempotency-key")
        if key is not None and not 1 <= len(key) <= MAX_KEY_CHARS:
            raise InvalidRequest(
                f"Idempotency-Key: must have 1 to {MAX_KEY_CHARS} characters.",
                param="idempotency-key",
            )
        return key


def json_answer(generation: Generation, content: Any) -> Response:
    """The answer of a generation without streaming, with the public name of its model."""
    body = encode({**content, "model": generation.model.id})
    return Response(body, media_type="application/json", headers=generation.headers)
