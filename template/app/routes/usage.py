"""`GET /v1/me`, `GET /v1/me/export` and `GET /v1/usage`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from app.dependencies import ERRORS, CurrentUser, EngineDep
from gateway.accounts.principals import Scope
from gateway.http.query import StrictRoute
from gateway.http.user_file import JSON_LINES, json_lines
from gateway.ledger.usage_report import Days, days_of
from gateway.schemas.base import Day
from gateway.schemas.usage import Me, UsageReport

router = APIRouter(prefix="/v1", tags=["account"], responses=ERRORS, route_class=StrictRoute)


async def asked_days(
    first: Annotated[Day | None, Query(alias="from")] = None,
    last: Annotated[Day | None, Query(alias="to")] = None,
) -> Days:
    """The days of the query; this month by default."""
    return days_of(first, last)


AskedDays = Annotated[Days, Depends(asked_days)]


@router.get("/me")
async def who_am_i(caller: CurrentUser, engine: EngineDep) -> Me:
    """The caller, with role and plan."""
    return Me.model_validate(await engine.users.get(caller.user_id))


@router.get("/me/export", response_class=Response, responses=JSON_LINES)
async def export_me(caller: CurrentUser, engine: EngineDep) -> Response:
    """Everything about the caller as JSON lines, the last of which has their number."""
    caller.require(Scope.READ)
    return json_lines(engine.database, await engine.users.get(caller.user_id))


@router.get("/usage", response_model_exclude_unset=True)
async def my_usage(caller: CurrentUser, engine: EngineDep, days: AskedDays) -> UsageReport:
    """What the caller spent, by day and model; this month unless other days are asked for."""
    caller.require(Scope.READ)
    return await engine.report.of_user(caller.user_id, caller.plan, days, raised=caller.raised)
