"""`/auth`: log in and out, passwords, invitations, registration."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.auth.jwt.accounts import Accounts, Client, invite
from app.auth.jwt.authenticator import JwtAuthenticator
from app.auth.jwt.registration import Registration, send_link
from app.dependencies import (
    ERRORS,
    Administrator,
    CurrentUser,
    EngineDep,
    SettingsDep,
)
from app.schemas.jwt import (
    Accepted,
    AcceptRequest,
    Invitation,
    InvitationRequest,
    LoginRequest,
    PasswordRequest,
    RefreshRequest,
    RegisterRequest,
    ResetRequest,
    Tokens,
    VerifyRequest,
)
from gateway.accounts.links import Purpose
from gateway.accounts.logins import Login
from gateway.accounts.tokens import ACCESS_LASTS
from gateway.engine import Engine
from gateway.errors import Forbidden
from gateway.http.query import StrictRoute

router = APIRouter(prefix="/auth", tags=["log-in"], responses=ERRORS, route_class=StrictRoute)
NO_MAIL = "This service sends no mail; ask an administrator for a link."
BY_INVITATION = "Registration is by invitation; ask an administrator for one."


async def get_parts(request: Request) -> JwtAuthenticator:
    parts: JwtAuthenticator = request.app.state.authenticator.method
    return parts


Parts = Annotated[JwtAuthenticator, Depends(get_parts)]


async def get_client(request: Request) -> Client:
    address = request.client.host if request.client else ""
    return Client(address, request.state.request_id)


ClientDep = Annotated[Client, Depends(get_client)]


@router.post("/login")
async def log_in(body: LoginRequest, parts: Parts, client: ClientDep) -> Tokens:
    """Log in with an e-mail address and a password."""
    return _tokens(parts, await Accounts(parts).log_in(body.email, body.password, client))


@router.post("/refresh")
async def refresh(body: RefreshRequest, parts: Parts) -> Tokens:
    """New tokens for a refresh token, which is used up.

    Within seconds, its second use is a 409: the answer to the first one counts. Later it is a sign
    of theft, and ends the log-in.
    """
    return _tokens(parts, await parts.logins.refresh(body.refresh_token))


@router.post("/password")
async def change_password(
    body: PasswordRequest, caller: CurrentUser, parts: Parts, client: ClientDep
) -> Tokens:
    """Change the caller's password. All log-ins end; the answer has the tokens of a new one."""
    accounts = Accounts(parts)
    login = await accounts.change_password(caller.user_id, body.current, body.new, client)
    return _tokens(parts, login)


@router.post("/invitations", status_code=201)
async def create_invitation(
    actor: Administrator, body: InvitationRequest, parts: Parts, engine: EngineDep
) -> Invitation:
    """Invite a person: the answer has a link that works once."""
    plan = body.plan or _first_plan(engine)
    engine.policy.require_plan(plan)
    email, link = await invite(parts.database, parts.links, body.email, body.role, plan, actor)
    send_link(parts, email, Purpose.INVITATION, link)
    return Invitation(
        email=email, link=link.url, expires_at=link.expires_at, sent=parts.mailer.can_send
    )


@router.post("/accept")
async def accept(body: AcceptRequest, parts: Parts, client: ClientDep) -> Tokens:
    """Set the password by the token of an invitation or of a reset link, and log in."""
    return _tokens(parts, await Accounts(parts).accept(body.token, body.password, client))


@router.post("/reset", status_code=202)
async def request_reset(body: ResetRequest, parts: Parts, client: ClientDep) -> Accepted:
    """Ask for a link to a new password, by mail."""
    _require_mail(parts)
    await Registration(parts).request_reset(body.email, client)
    return Accepted(message="If there is such an account, a link is on its way to its address.")


@router.post("/register", status_code=202)
async def register(
    body: RegisterRequest,
    parts: Parts,
    client: ClientDep,
    engine: EngineDep,
    settings: SettingsDep,
) -> Accepted:
    """Register for the first plan of plans.toml, where registration is open.

    Before the first generation the address is verified.
    """
    if settings.registration != "open":
        raise Forbidden(BY_INVITATION)
    _require_mail(parts)
    await Registration(parts).register(body.email, body.password, _first_plan(engine), client)
    return Accepted(message="A link is on its way to this address.")


@router.post("/verify")
async def verify(body: VerifyRequest, parts: Parts, client: ClientDep) -> Tokens:
    """Verify an address by the token of its link and the account's password, and log in."""
    return _tokens(parts, await Registration(parts).verify(body.token, body.password, client))


def _first_plan(engine: Engine) -> str:
    return next(iter(engine.policy.plans))


def _require_mail(parts: JwtAuthenticator) -> None:
    if not parts.mailer.can_send:
        raise Forbidden(NO_MAIL)


def _tokens(parts: JwtAuthenticator, login: Login) -> Tokens:
    return Tokens(
        access_token=parts.ring.access_token(login.user_id, login.id),
        expires_in=int(ACCESS_LASTS.total_seconds()),
        refresh_token=login.refresh_token,
    )
