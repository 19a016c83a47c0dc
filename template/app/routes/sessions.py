"""`/auth/sign-in`, `/auth/session`, `/auth/logout`: browser sessions, for every log-in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from app import wiring
from app.auth.authenticator import RequestAuthenticator
from app.auth.next_page import SIGN_IN, next_page
from app.console.sign_in import forms, sign_in_page, signed_in
from app.dependencies import ERRORS, EngineDep, SettingsDep
from app.schemas.sessions import LogOut, Session
from app.settings import Settings
from gateway.accounts.audit import Actor
from gateway.accounts.principals import Principal
from gateway.accounts.sessions import LIFE
from gateway.db.tables import utc_now
from gateway.errors import InvalidCredentials, InvalidRequest, ServiceError, log_cause
from gateway.http.cookies import COOKIE, CookieRules, cookie_of, csrf_token
from gateway.http.forms import is_form, read_form
from gateway.telemetry.context import bind

router = APIRouter(prefix="/auth", tags=["sessions"], responses=ERRORS)
NO_STORE = {"Cache-Control": "no-store"}
WRONG = "That did not match. Check it, and try again."


def get_authenticator(request: Request) -> RequestAuthenticator:
    authenticator: RequestAuthenticator = request.app.state.authenticator
    return authenticator


def get_cookie_rules(settings: SettingsDep) -> CookieRules:
    return CookieRules(settings.production, bool(settings.framed_by))


Authenticators = Annotated[RequestAuthenticator, Depends(get_authenticator)]
Cookies = Annotated[CookieRules, Depends(get_cookie_rules)]


@router.get("/sign-in", include_in_schema=False)
@router.head("/sign-in", include_in_schema=False)
async def show_sign_in(
    request: Request,
    settings: SettingsDep,
    users: Authenticators,
    next: str = SIGN_IN,  # noqa: A002
) -> Response:
    """The page to sign in with, or to sign out for a browser with a session."""
    token = cookie_of(request.headers)
    session = await users.session(token)
    if session and token:
        return sign_in_page(settings, signed_in(session, token))
    return sign_in_page(settings, sign_in_forms(settings, next_page(next)))


@router.post("/session", status_code=303, response_class=RedirectResponse)
async def start_session(
    request: Request,
    settings: SettingsDep,
    engine: EngineDep,
    users: Authenticators,
    cookies: Cookies,
) -> Response:
    """Turn a credential into a session of this browser: a form with the log-in's fields."""
    users.pages.require_own(request.headers)
    fields = await read_form(request)
    target = next_page(fields.get("next"))
    address = request.client.host if request.client else ""
    try:
        principal = await users.method.sign_in(fields, address)
        return await begin_session(request, engine, cookies, principal, target)
    except ServiceError as error:
        return refuse(error, settings, target)


@router.get("/session")
async def show_session(request: Request, response: Response, users: Authenticators) -> Session:
    """The session of this browser, with the token for its header `X-CSRF-Token`."""
    token = cookie_of(request.headers)
    session = await users.session(token)
    if not (session and token):
        raise InvalidCredentials("This browser has no session; GET /auth/sign-in starts one.")
    response.headers.update(NO_STORE)
    given = {"user_id": session.user_id, "expires_at": session.expires_at}
    return Session(**given, csrf_token=csrf_token(token))


@router.post("/logout", status_code=204, responses={303: {"description": "For a form."}})
async def log_out(
    request: Request, engine: EngineDep, users: Authenticators, cookies: Cookies
) -> Response:
    """End the session of this browser, or with `{"all": true}` every session of its user."""
    token = cookie_of(request.headers)
    asked, given = await _log_out(request)
    await _end_login(request, engine, users, everywhere=asked.all)
    session = await users.session(token)
    if session and token:
        users.require_csrf(request.headers, token, given)
        actor = Actor(session.user_id, request.state.request_id)
        if asked.all:
            await engine.sessions.end_all(session.user_id, actor)
        else:
            await engine.sessions.end(session.id, actor)
    answer = _redirect(SIGN_IN, request) if is_form(request) else Response(status_code=204)
    answer.headers.append("Set-Cookie", cookies.cookie(COOKIE, "", 0))
    return answer


async def begin_session(
    request: Request, engine: EngineDep, cookies: CookieRules, principal: Principal, target: str
) -> Response:
    """The answer that gives the browser a new session, and leads to `target`.

    The session that the browser had before ends, so that no token is kept for another user.
    """
    request_id = request.state.request_id
    if before := await request.app.state.authenticator.session(cookie_of(request.headers)):
        await engine.sessions.end(before.id, Actor(before.user_id, request_id))
    token, expires_at = await engine.sessions.create(principal, request_id)
    seconds = min(expires_at - utc_now(), LIFE).total_seconds()
    answer = _redirect(target, request)
    answer.headers.append("Set-Cookie", cookies.cookie(COOKIE, token, int(seconds)))
    return answer


async def _end_login(
    request: Request, engine: EngineDep, users: RequestAuthenticator, *, everywhere: bool
) -> None:
    """End the log-in of a request's header, where the method has log-ins."""
    authorization = request.headers.get("authorization")
    if authorization is None:
        return
    user_id = await users.method.log_out(authorization, everywhere=everywhere)
    if user_id and everywhere:
        await engine.sessions.end_all(user_id, Actor(user_id, request.state.request_id))


async def _log_out(request: Request) -> tuple[LogOut, str]:
    """What a log-out asks for, and the token of its form. Raises `InvalidRequest`."""
    if is_form(request):
        fields = await read_form(request)
        return LogOut(all=fields.get("all") == "true"), fields.get("csrf_token", "")
    body = await request.body()
    try:
        return LogOut.model_validate_json(body) if body else LogOut(), ""
    except ValidationError as error:
        raise InvalidRequest('The body must be absent, or {"all": true}.') from error


def sign_in_forms(settings: Settings, target: str, up: str = "") -> str:
    """The forms and buttons of the chosen log-in; `up` leads from the page to `/auth/`."""
    buttons = wiring.auth.buttons(settings)
    return forms(wiring.auth.FIELDS, buttons, target, up, bool(settings.framed_by))


def refuse(error: ServiceError, settings: Settings, target: str, up: str = "") -> Response:
    """The page again. Without a challenge, at which a browser would ask for a password itself."""
    content = sign_in_forms(settings, target, up)
    return refused(error, sign_in_page(settings, content, told(error), error.status, up))


def told(error: ServiceError) -> str:
    """What a page says of an error."""
    return WRONG if error.status == 401 else error.message


def refused(error: ServiceError, answer: Response) -> Response:
    """`answer`, a page that tells of `error`, which is logged."""
    log_cause(error)
    bind(code=error.code)
    if wait := error.headers.get("Retry-After"):
        answer.headers["Retry-After"] = wait
    return answer


def _redirect(path: str, request: Request) -> RedirectResponse:
    """To a page of this service, relative to the request's address: a proxy may add a path."""
    depth = request.scope["route"].path.count("/") - 1
    return RedirectResponse("/".join([".."] * depth) + path, 303, NO_STORE)
