"""What the routes share: how a request becomes a call, and how parts of answers look."""

import datetime as dt
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Header, Query, Request, Response
from pydantic import BaseModel, ConfigDict, PlainSerializer, StringConstraints
from pydantic_core import to_json

from app.auth.dependencies import authenticate
from app.auth.principal import Principal
from app.errors import InvalidRequest
from app.guard.generation import Call, Generation
from app.policy import Kind

Time = Annotated[
    dt.datetime,
    PlainSerializer(lambda at: at.isoformat().replace("+00:00", "Z"), return_type=str),
]
"""ISO 8601 in UTC with `Z`."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
PageSize = Annotated[int, Query(ge=1, le=100)]
Entry = TypeVar("Entry")


class RequestBody(BaseModel):
    """A body whose unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[Entry]):
    """A part of a list; `next_cursor` asks for the next one."""

    data: list[Entry]
    next_cursor: str | None


class Asking:
    """Makes the calls that a request asks for."""

    def __init__(self, request: Request, caller: Principal, idempotency_key: str | None) -> None:
        self.request = request
        self.caller = caller
        self._idempotency_key = idempotency_key

    def call(
        self, kind: Kind, model: str, body: dict[str, Any], seconds: float | None = None
    ) -> Call:
        """A call within `seconds`. Raises `InvalidRequest` for what cannot be written as JSON."""
        try:
            to_json(body)
        except ValueError as error:
            raise InvalidRequest(
                "The body is nested too deeply, or its text is not valid Unicode."
            ) from error
        seconds = seconds or self.request.app.state.settings.request_deadline_seconds
        request_id = self.request.state.request_id
        return Call(self.caller, kind, model, body, request_id, seconds, self._idempotency_key)


async def asking(
    request: Request,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
) -> Asking:
    """Authenticates too: a dependency less on the path that must be fast."""
    return Asking(request, await authenticate(request), idempotency_key)


Asked = Annotated[Asking, Depends(asking)]


def answer(generation: Generation, content: Any) -> Response:
    """An answer in one piece, under the public name of the model that served."""
    body = to_json({**content, "model": generation.model.id})
    return Response(body, media_type="application/json", headers=generation.headers)
