"""`/v1/keys`: the caller's own API keys; administrators end those of a user."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Depends

from app.dependencies import ERRORS, Administrator, Changer, CurrentUser, EngineDep, SettingsDep
from app.routes.base import AskedPage
from app.schemas.keys import ApiKey, CreatedKey, KeyRequest
from gateway.accounts.api_keys import Keys, api_keys, owned
from gateway.accounts.principals import Scope
from gateway.db.tables import utc_now
from gateway.errors import Forbidden, InvalidRequest
from gateway.http.query import StrictRoute
from gateway.schemas.base import Page, utc_text

router = APIRouter(prefix="/v1", tags=["keys"], responses=ERRORS, route_class=StrictRoute)
# Later times cannot be written in every zone.
LATEST = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


async def get_keys(engine: EngineDep, settings: SettingsDep) -> Keys:
    return Keys(engine.database, settings.project["name"])


KeysDep = Annotated[Keys, Depends(get_keys)]


@router.get("/keys")
async def list_keys(caller: CurrentUser, page: AskedPage) -> Page[ApiKey]:
    """The caller's keys, newest first."""
    caller.require(Scope.READ)
    return await page.of(ApiKey.model_validate, owned(caller.user_id), api_keys)


@router.post("/keys", status_code=201)
async def create_key(
    actor: Changer, caller: CurrentUser, body: KeyRequest, keys: KeysDep
) -> CreatedKey:
    """A new key, with no more scopes and no longer life than the key that asks for it."""
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
    secret, row = await keys.create(
        caller.user_id, body.name, body.scopes, actor, body.expires_at, body.limits
    )
    return CreatedKey.model_validate(row).model_copy(update={"secret": secret})


@router.delete("/keys/{key_id}", status_code=204)
async def revoke_key(actor: Changer, caller: CurrentUser, key_id: str, keys: KeysDep) -> None:
    """End a key at once."""
    await keys.revoke(caller.user_id, key_id, actor)


@router.delete("/admin/users/{user_id}/keys", status_code=204, tags=["admin"])
async def revoke_keys(actor: Administrator, user_id: str, keys: KeysDep, engine: EngineDep) -> None:
    """End all keys of a user at once."""
    await engine.users.get(user_id)
    await keys.revoke_all(user_id, actor)
