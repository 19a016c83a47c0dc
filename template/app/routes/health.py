"""Is it up, is it ready, what does it count: for hosts and monitors."""

import hmac

from fastapi import APIRouter, Request, Response

from app.dependencies import ReadinessDep, SettingsDep
from gateway.errors import NotFound
from gateway.telemetry import metrics

router = APIRouter(tags=["health"])


@router.get("/livez")
@router.head("/livez", include_in_schema=False)
async def alive() -> dict[str, str]:
    """The process is up; says nothing of what it depends on."""
    return {"status": "ok"}


@router.get("/readyz")
@router.head("/readyz", include_in_schema=False)
@router.get("/healthz", include_in_schema=False)
@router.head("/healthz", include_in_schema=False)
async def ready(readiness: ReadinessDep, response: Response) -> dict[str, str]:
    """Whether generations can be served now, and the version of this replica's policy files.

    Needs the process, the database, the limiter and a provider.
    """
    is_ready = await readiness.is_ready()
    response.status_code = 200 if is_ready else 503
    status = "ready" if is_ready else "not ready"
    return {"status": status, "policy_version": readiness.policy_version}


@router.get("/metrics", include_in_schema=False)
async def expose_metrics(request: Request, settings: SettingsDep) -> Response:
    """Prometheus' text format. In production it is not there without the token."""
    token = settings.metrics_token.get_secret_value()
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    right = hmac.compare_digest(given.strip().encode(), token.encode())
    if (token or settings.production) and not (token and right and scheme.lower() == "bearer"):
        raise NotFound("There is nothing at this address; see /docs.")
    body, content_type = metrics.expose()
    return Response(body, headers={"Content-Type": content_type})
