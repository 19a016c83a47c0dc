"""`/v1/admin/users…`: who may use the service, and how much, for the owner."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import StringConstraints

from app import wiring
from app.dependencies import (
    ERRORS,
    Administrator,
    CurrentUser,
    EngineDep,
    SettingsDep,
    require_reader,
)
from app.routes.base import AskedPage
from app.schemas.admin import BudgetRaise, CreatedUser, User, UserChange, UserRequest
from gateway.accounts.principals import Raise, Role, Scope
from gateway.accounts.users import UserSearch
from gateway.db.tables import users
from gateway.errors import Conflict, InvalidRequest
from gateway.http.query import StrictRoute
from gateway.http.user_file import JSON_LINES, json_lines
from gateway.schemas.base import NO_CONTROL, Page

router = APIRouter(
    prefix="/v1/admin/users", tags=["admin"], responses=ERRORS, route_class=StrictRoute
)
READING = [Depends(require_reader)]
SEARCH_SECONDS = 5.0
Word = Annotated[str, StringConstraints(min_length=1, max_length=254, pattern=NO_CONTROL)]


async def asked_users(
    email: Annotated[Word | None, Query(description="A part of the address.")] = None,
    role: Role | None = None,
    plan: Word | None = None,
    disabled: bool | None = None,
) -> UserSearch:
    """Whom the query looks for; everybody by default."""
    return UserSearch(email, role, plan, disabled)


AskedUsers = Annotated[UserSearch, Depends(asked_users)]


@router.get("", dependencies=READING)
async def list_users(page: AskedPage, search: AskedUsers) -> Page[User]:
    """All users, or those who match, newest first."""
    seconds = SEARCH_SECONDS if any(search) else None
    return await page.of(User.model_validate, search.query(), users, seconds)


@router.post("", status_code=201)
async def create_user(
    actor: Administrator,
    caller: CurrentUser,
    body: UserRequest,
    engine: EngineDep,
    settings: SettingsDep,
) -> CreatedUser:
    """A new user with a credential, which is shown this once.

    An API key has every scope, and ends with the key that asks for the user at the latest.
    """
    caller.require_grant(Scope)
    engine.policy.require_plan(body.plan)
    user = await engine.users.create(body.email, body.role, body.plan, actor)
    secret = await wiring.auth.create_credential(
        settings, engine.database, user.id, actor, caller.expires_at
    )
    return CreatedUser.model_validate(user).model_copy(update={"credential": secret})


@router.patch("/{user_id}")
async def change_user(
    actor: Administrator, user_id: str, body: UserChange, engine: EngineDep
) -> User:
    """Change a user's role or plan, or end or restore all access."""
    engine.policy.require_plan(body.plan)
    if user_id == actor.id and (body.disabled or body.role not in {None, Role.ADMIN}):
        raise Conflict("Another administrator must do this: you would shut yourself out.")
    return User.model_validate(await engine.users.change(user_id, actor, **body.model_dump()))


@router.put("/{user_id}/budget")
async def raise_budget(
    actor: Administrator, user_id: str, body: BudgetRaise, engine: EngineDep
) -> User:
    """Raise a user's own budgets until a day; those of the plan, team and service stay."""
    if body.daily_nano_usd is None and body.monthly_nano_usd is None:
        raise InvalidRequest("daily_nano_usd or monthly_nano_usd is needed.", param="until")
    raised = Raise(body.daily_nano_usd, body.monthly_nano_usd, body.until.isoformat())
    return User.model_validate(await engine.users.raise_budget(user_id, raised, actor))


@router.delete("/{user_id}/budget", status_code=204)
async def end_raise(actor: Administrator, user_id: str, engine: EngineDep) -> None:
    """End a raise: the plan's budgets count again."""
    await engine.users.raise_budget(user_id, None, actor)


@router.delete("/{user_id}/sessions", status_code=204)
async def end_sessions(actor: Administrator, user_id: str, engine: EngineDep) -> None:
    """Sign a user out of every browser."""
    await engine.users.get(user_id)
    await engine.sessions.end_all(user_id, actor)


@router.get("/{user_id}/export", response_class=Response, responses=JSON_LINES)
async def export_user(actor: Administrator, user_id: str, engine: EngineDep) -> Response:
    """Everything about a user as JSON lines. The audit has an entry of it."""
    user = await engine.users.get(user_id)
    await engine.users.note_export(user_id, actor)
    return json_lines(engine.database, user)
