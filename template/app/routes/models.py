"""`GET /v1/models`, in OpenAI's wire format."""

import datetime as dt

from fastapi import APIRouter

from app.dependencies import ERRORS, CurrentUser, EngineDep
from gateway.http.query import StrictRoute
from gateway.policy import Model
from gateway.schemas.answers import ModelEntry, ModelList

router = APIRouter(prefix="/v1/models", tags=["models"], responses=ERRORS, route_class=StrictRoute)


@router.get("")
async def list_models(_: CurrentUser, engine: EngineDep) -> ModelList:
    """The models that can be asked for."""
    return ModelList(data=[_entry(model) for model in engine.policy.models.values()])


@router.get("/{name:path}")
async def get_model(_: CurrentUser, name: str, engine: EngineDep) -> ModelEntry:
    """One of them."""
    return _entry(engine.policy.model(name))


def _entry(model: Model) -> ModelEntry:
    checked = dt.datetime.combine(model.prices_checked, dt.time(), dt.UTC)
    created = int(checked.timestamp())
    return ModelEntry(id=model.id, created=created, owned_by=model.provider)
