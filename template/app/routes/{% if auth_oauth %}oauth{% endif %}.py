"""`/auth/login/…` and `/auth/callback/…`: sign in with a provider's account."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse

from app.auth.next_page import SIGN_IN, next_page
from app.auth.oauth import OAuthMethod
from app.dependencies import EngineDep, SettingsDep
from app.routes.sessions import NO_STORE, Authenticators, Cookies, begin_session, refuse
from app.settings import Settings
from gateway.accounts.admission import parse_allowed
from gateway.accounts.principals import Principal
from gateway.accounts.sign_in.flow import COOKIE, LIFE_SECONDS
from gateway.accounts.sign_in.provider import Attempt
from gateway.engine import Engine
from gateway.errors import Forbidden, ServiceError
from gateway.http.cookies import cookie_of

router = APIRouter(prefix="/auth", include_in_schema=False)
PATH = "/auth/"
# From `/auth/login/NAME` and `/auth/callback/NAME` to `/auth/`.
UP = "../"
# The plan of users that sign up, or the first one of plans.toml.
PLAN = "free"


def get_method(users: Authenticators) -> OAuthMethod:
    assert isinstance(users.method, OAuthMethod)
    return users.method


Method = Annotated[OAuthMethod, Depends(get_method)]


@router.get("/login/{name}")
async def begin(
    request: Request,
    name: str,
    settings: SettingsDep,
    method: Method,
    cookies: Cookies,
    next: str = SIGN_IN,  # noqa: A002
) -> Response:
    """Send the browser to a provider, and `next` to where it goes then."""
    method.flow.provider(name)
    target, redirect_uri = next_page(next), _redirect_uri(request, settings, name)
    try:
        await method.throttle.admit("login", _address(request))
        address, sealed = await method.flow.begin(name, redirect_uri, target)
    except ServiceError as error:
        return refuse(error, settings, target, UP)
    answer = RedirectResponse(address, 303, NO_STORE)
    answer.headers.append("Set-Cookie", cookies.cookie(COOKIE, sealed, LIFE_SECONDS, PATH))
    return answer


@router.get("/callback/{name}")
async def finish(
    request: Request,
    name: str,
    settings: SettingsDep,
    engine: EngineDep,
    method: Method,
    cookies: Cookies,
) -> Response:
    """Take the provider's answer: who signed in gets a session."""
    method.flow.provider(name)
    target = SIGN_IN
    try:
        cookie = cookie_of(request.headers, COOKIE)
        attempt = method.flow.recognise(name, cookie, request.query_params.get("state", ""))
        target = attempt.next
        await method.throttle.admit("callback", _address(request))
        principal = await _principal(request, attempt, settings, engine, method)
        answer = await begin_session(request, engine, cookies, principal, target)
    except ServiceError as error:
        answer = refuse(error, settings, target, UP)
    answer.headers.append("Set-Cookie", cookies.cookie(COOKIE, "", 0, PATH))
    return answer


async def _principal(
    request: Request, attempt: Attempt, settings: Settings, engine: Engine, method: OAuthMethod
) -> Principal:
    """Who signed in. Raises `Forbidden`, `Conflict` and `ProviderError`."""
    await method.identities.use_state(attempt.state, attempt.expires_at)
    code = request.query_params.get("code")
    if "error" in request.query_params or not code:
        raise Forbidden("The provider did not sign you in. Start again.")
    profile = await method.flow.provider(attempt.provider).profile(attempt, code)
    allowed = parse_allowed(settings.oauth_allowed)
    is_listed = settings.registration == "open" or allowed.admits(
        profile.email, profile.domain, profile.organisations
    )
    plan = PLAN if PLAN in engine.policy.plans else next(iter(engine.policy.plans))
    user_id = await method.identities.user_of(
        profile, plan, request.state.request_id, is_listed=is_listed
    )
    return await engine.users.principal(user_id)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _redirect_uri(request: Request, settings: Settings, name: str) -> str:
    """Where the provider sends the browser: an address that was registered there."""
    own = settings.public_url or f"{request.url.scheme}://{request.headers.get('host', '')}"
    return f"{own.rstrip('/')}{PATH}callback/{name}"
