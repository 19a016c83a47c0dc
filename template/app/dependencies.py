"""What routes ask for: the caller."""

from typing import Annotated, Any

from fastapi import Depends, Request
from pydantic import BaseModel

from gateway.accounts.principals import Authenticator, Principal
from gateway.telemetry.context import note


class ErrorDetail(BaseModel):
    message: str
    type: str
    code: str
    param: str | None


class ErrorBody(BaseModel):
    """Every error of this API."""

    error: ErrorDetail


# Declared on every route, so that the API's description says what may come back.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody}
    for status in (400, 401, 402, 403, 404, 409, 413, 422, 429, 502, 503, 504)
}


async def authenticate(request: Request) -> Principal:
    """The principal of this request; its id is on every log line from here on."""
    authenticator: Authenticator = request.app.state.authenticator
    address = request.client.host if request.client else ""
    principal = await authenticator.authenticate(request.method, request.headers, address)
    note(user_id=principal.user_id)
    return principal


Caller = Annotated[Principal, Depends(authenticate)]
