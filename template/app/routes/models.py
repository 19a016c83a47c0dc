"""`GET /v1/models`, in OpenAI's wire format."""

import datetime as dt
from typing import Any

from fastapi import APIRouter, Request

from app.dependencies import ERRORS, Caller
from app.routes.base import StrictRoute
from gateway.policy import Model, Policy

router = APIRouter(prefix="/v1/models", tags=["models"], responses=ERRORS, route_class=StrictRoute)


@router.get("")
async def list_models(caller: Caller, request: Request) -> dict[str, Any]:
    """The models that can be asked for."""
    policy: Policy = request.app.state.engine.policy
    return {"object": "list", "data": [_entry(model) for model in policy.models.values()]}


@router.get("/{name:path}")
async def get_model(caller: Caller, name: str, request: Request) -> dict[str, Any]:
    """One of them."""
    policy: Policy = request.app.state.engine.policy
    return _entry(policy.model(name))


def _entry(model: Model) -> dict[str, Any]:
    checked = dt.datetime.combine(model.prices_checked, dt.time(), dt.UTC)
    return {
        "id": model.id,
        "object": "model",
        "created": int(checked.timestamp()),
        "owned_by": model.provider,
    }
