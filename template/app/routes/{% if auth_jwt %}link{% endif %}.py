"""`/auth/link`: the page of invitations, password resets and verifications."""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from app.auth.jwt.accounts import Accounts, Client
from app.auth.jwt.authenticator import JwtAuthenticator
from app.auth.jwt.registration import Registration
from app.console.link import dead_link_page, link_page, password_page
from app.dependencies import SettingsDep
from app.routes.jwt import ClientDep, Parts
from app.routes.sessions import NO_STORE, Authenticators, refused, told
from app.schemas.jwt import MAX_PASSWORD, MIN_PASSWORD
from gateway.accounts.links import Purpose
from gateway.accounts.signed_links import UnusedLink
from gateway.errors import InvalidRequest, ServiceError
from gateway.http.forms import read_form

router = APIRouter(prefix="/auth", include_in_schema=False)
# Relative, as a proxy may add a path.
SIGN_IN = "sign-in"


@router.get("/link")
@router.head("/link")
async def show_link(settings: SettingsDep) -> Response:
    """The page for a link. Programs that look at the links of mails use none."""
    return link_page(settings)


@router.post("/link")
async def take_link(
    request: Request,
    settings: SettingsDep,
    users: Authenticators,
    parts: Parts,
    client: ClientDep,
) -> Response:
    """Ask for the password of a link; with the password, use the link and lead to the sign-in."""
    users.pages.require_own(request.headers)
    fields = await read_form(request)
    token = fields.get("link", "").strip().rpartition("=")[2]
    try:
        link = await parts.links.find(token)
    except ServiceError as error:
        return refused(error, dead_link_page(settings, error.message, error.status))
    if "password" not in fields:
        return password_page(settings, link)
    try:
        await _use(parts, link, fields, client)
    except ServiceError as error:
        page = password_page(settings, link, told(error), error.status)
        return refused(error, page)
    return RedirectResponse(SIGN_IN, 303, NO_STORE)


async def _use(
    parts: JwtAuthenticator, link: UnusedLink, fields: Mapping[str, str], client: Client
) -> None:
    """Use a link. Its log-in is for programs, and ends. Raises `ServiceError`."""
    if link.purpose is Purpose.VERIFICATION:
        login = await Registration(parts).verify(link.token, fields["password"], client)
    else:
        login = await Accounts(parts).accept(link.token, _new_password(fields), client)
    await parts.logins.end(login.user_id, login.id)


def _new_password(fields: Mapping[str, str]) -> str:
    """The password that a person chose. Raises `InvalidRequest`."""
    password = fields["password"]
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise InvalidRequest(
            f"A password has {MIN_PASSWORD} to {MAX_PASSWORD} characters.", param="password"
        )
    if password != fields.get("again"):
        raise InvalidRequest("The two passwords differ.", param="again")
    return password
