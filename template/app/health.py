"""Is it up, is it ready, what does it count: for hosts and monitors."""

import asyncio
import hmac
from typing import Any

from fastapi import APIRouter, Request, Response

from app.db.engine import Database
from app.db.revisions import pending
from app.errors import NotFound, ServiceError
from app.guard.cooldown import Cooldown
from app.guard.watch import Watch
from app.patience import within
from app.policy import Model, Policy
from app.settings import Settings
from app.state.base import Limiter
from app.telemetry import metrics

router = APIRouter(tags=["health"])
CHECK_SECONDS = 0.9


@router.get("/livez")
@router.head("/livez", include_in_schema=False)
async def alive() -> dict[str, str]:
    """The process is up; says nothing of what it depends on."""
    return {"status": "ok"}


@router.get("/readyz")
@router.head("/readyz", include_in_schema=False)
@router.get("/healthz", include_in_schema=False)
@router.head("/healthz", include_in_schema=False)
async def ready(request: Request, response: Response) -> dict[str, str]:
    """Whether generations can be served now: by process, database, limiter, policy, a provider."""
    if await is_ready(request.app.state):
        return {"status": "ready"}
    response.status_code = 503
    return {"status": "not ready"}


@router.get("/metrics", include_in_schema=False)
async def expose_metrics(request: Request) -> Response:
    """Prometheus' text format. In production it is not there without the token."""
    settings: Settings = request.app.state.settings
    token = settings.metrics_token.get_secret_value()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if (token or settings.production) and not (token and right and scheme.lower() == "bearer"):
        raise NotFound("There is nothing at this address; see /docs.")
    body, content_type = metrics.expose()
    return Response(body, headers={"Content-Type": content_type})


async def is_ready(state: Any) -> bool:
    """Whether everything that a generation needs answers within a second."""
    database: Database = state.database
    limiter: Limiter = state.limiter
    watch: Watch = state.watch
    cooldown: Cooldown = state.cooldown
    if any(loop.done() for loop in state.loops):
        return False  # It crashed, and without it nobody sweeps, watches or tells.

    async def check() -> bool:
        await asyncio.gather(limiter.check(), database.check())
        return (
            watch.is_current
            and not await pending(database)
            and await cooldown.is_any_ready(_models(state.policy, state.settings))
        )

    try:
        return await within(check(), CHECK_SECONDS)
    except (ServiceError, TimeoutError):
        return False


def _models(policy: Policy, settings: Settings) -> list[Model]:
    """Those that somebody waits for: in production, the offline provider's are none."""
    return [
        model
        for model in policy.models.values()
        if not (settings.production and model.provider == "offline")
    ]
