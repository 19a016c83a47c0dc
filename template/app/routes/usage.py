"""`GET /v1/me` and `GET /v1/usage`."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request

from app.dependencies import ERRORS, Caller
from app.routes.base import StrictRoute
from gateway.accounts.principals import Scope
from gateway.accounts.users import Users
from gateway.ledger.usage_report import Days, Report, days_of
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
async def who_am_i(caller: Caller, request: Request) -> Me:
    """The caller, with role and plan."""
    users: Users = request.app.state.engine.users
    return Me.model_validate(await users.get(caller.user_id))


@router.get("/usage", response_model_exclude_unset=True)
async def my_usage(caller: Caller, request: Request, days: AskedDays) -> UsageReport:
    """What the caller spent, by day and model; this month unless other days are asked for."""
    caller.require(Scope.READ)
    report: Report = request.app.state.engine.report
    return await report.of_user(caller.user_id, caller.plan, days)
