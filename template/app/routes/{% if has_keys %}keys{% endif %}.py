"""`/v1/keys`: the caller's own API keys; administrators end those of a user."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.dependencies import ERRORS, Administrator, CurrentUser, EngineDep, SettingsDep
from app.routes.base import PageSize, StrictRoute
from app.schemas.keys import ApiKey, CreatedKey, KeyRequest
from gateway.accounts.api_keys import Keys, api_keys, owned
from gateway.accounts.audit import Actor
from gateway.accounts.principals import Principal, Scope
from gateway.db.tables import utc_now
from gateway.errors import Forbidden, InvalidRequest
from gateway.schemas.base import Page, utc_text

router = APIRouter(prefix="/v1", tags=["keys"], responses=ERRORS, route_class=StrictRoute)
# Later times cannot be written in every zone.
LATEST = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


async def get_keys(engine: EngineDep, settings: SettingsDep) -> Keys:
    return Keys(engine.database, settings.project["name"])


KeysDep = Annotated[Keys, Depends(get_keys)]


@router.get("/keys")
async def list_keys(
    caller: CurrentUser, engine: EngineDep, limit: PageSize = 20, cursor: str | None = None
) -> Page[ApiKey]:
    """The caller's keys, newest first."""
    caller.require(Scope.READ)
    rows, next_cursor = await engine.pages.read(owned(caller.user_id), api_keys, limit, cursor)
    return Page(data=[ApiKey.model_validate(row) for row in rows], next_cursor=next_cursor)


@router.post("/keys", status_code=201)
async def create_key(
    caller: CurrentUser, body: KeyRequest, keys: KeysDep, request: Request
) -> CreatedKey:
    """A new key, with no more scopes and no longer life than the key that asks for it."""
    caller.require(Scope.ADMIN)
    caller.require_grant(body.scopes)
    if body.expires_at and not utc_now() < body.expires_at < LATEST:
        raise InvalidRequest(
            "expires_at must lie in the future and before the year 9999.", param="expires_at"
        )
    if caller.expires_at and not (body.expires_at and body.expires_at <= caller.expires_at):
        raise Forbidden(
            "A key that expires makes none that outlive it: give an expires_at of "
            f"{utc_text(caller.expires_at)} at the latest."
        )
    actor = _actor(caller, request)
    secret, row = await keys.create(
        caller.user_id, body.name, body.scopes, actor, body.expires_at, body.limits
    )
    return CreatedKey.model_validate(row).model_copy(update={"secret": secret})


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(caller: CurrentUser, key_id: str, keys: KeysDep, request: Request) -> None:
    """End a key at once."""
    caller.require(Scope.ADMIN)
    await keys.revoke(caller.user_id, key_id, _actor(caller, request))


@router.delete("/admin/users/{user_id}/keys", status_code=204, tags=["admin"])
async def revoke_keys(actor: Administrator, user_id: str, keys: KeysDep, engine: EngineDep) -> None:
    """End all keys of a user at once."""
    await engine.users.get(user_id)
    await keys.revoke_all(user_id, actor)


def _actor(caller: Principal, request: Request) -> Actor:
    return Actor(caller.user_id, request.state.request_id)
