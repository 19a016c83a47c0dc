"""The dependencies of routes: settings, engine, current user, context of a generation."""

from typing import Annotated, Any

from fastapi import Depends, Header, Request, Security

from app import wiring
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.principals import Authenticator, Principal, Role, Scope
from gateway.engine import Engine
from gateway.errors import Forbidden
from gateway.gateway import Gateway
from gateway.http.context import MAX_KEY_CHARS, GenerationContext
from gateway.readiness import Readiness
from gateway.schemas.errors import ErrorBody
from gateway.telemetry.context import bind

# Declared on every route, so that the API's description says what may come back.
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody}
    for status in (400, 401, 402, 403, 404, 409, 413, 422, 429, 502, 503, 504)
}
# Read by the authenticator; declared here for the API's description.
Credential = Annotated[Any, Security(wiring.auth.SCHEME)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same request with the same key gets the first answer again, for a day.",
        min_length=1,
        max_length=MAX_KEY_CHARS,
    ),
]


def get_settings(request: Request) -> Settings:
    settings: Settings = request.app.state.settings
    return settings


def get_engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def get_readiness(request: Request) -> Readiness:
    readiness: Readiness = request.app.state.readiness
    return readiness


SettingsDep = Annotated[Settings, Depends(get_settings)]
EngineDep = Annotated[Engine, Depends(get_engine)]
ReadinessDep = Annotated[Readiness, Depends(get_readiness)]


async def authenticate(request: Request, _: Credential = None) -> Principal:
    """The user of this request, whose id is on every log line from here on.

    Raises what the authenticator raises, `InvalidCredentials` above all.
    """
    authenticator: Authenticator = request.app.state.authenticator
    address = request.client.host if request.client else ""
    principal = await authenticator.authenticate(request.method, request.headers, address)
    bind(user_id=principal.user_id)
    return principal


CurrentUser = Annotated[Principal, Depends(authenticate)]


async def get_context(
    request: Request, user: CurrentUser, _: IdempotencyKey = None
) -> GenerationContext:
    """The context of a generation."""
    bind(route=request.scope["route"].path)
    return GenerationContext(request, user, get_engine(request))


ContextDep = Annotated[GenerationContext, Depends(get_context)]


async def get_gateway(context: ContextDep) -> Gateway:
    """The engine for the current user, for a route of your own: docs/add-a-feature.md."""
    return await context.gateway()


GatewayDep = Annotated[Gateway, Depends(get_gateway)]


async def require_reader(user: CurrentUser) -> None:
    """Pass auditors, and administrators with the scope `admin`. Raises `Forbidden`."""
    user.require(Scope.READ if user.role is Role.AUDITOR else Scope.ADMIN)
    if user.role is Role.USER:
        raise Forbidden("Only administrators and auditors may read this.")


async def get_changer(user: CurrentUser, request: Request) -> Actor:
    """The user, who may change access, as the audit names them. Raises `Forbidden`."""
    user.require(Scope.ADMIN)
    return Actor(user.user_id, request.state.request_id)


Changer = Annotated[Actor, Depends(get_changer)]


async def get_administrator(user: CurrentUser, changer: Changer) -> Actor:
    """The administrator, as the audit names them. Raises `Forbidden`."""
    if user.role is not Role.ADMIN:
        raise Forbidden("Only administrators may change this.")
    return changer


Administrator = Annotated[Actor, Depends(get_administrator)]
