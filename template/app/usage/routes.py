"""`GET /v1/me` and `GET /v1/usage`."""

import datetime as dt
from typing import Annotated

from fastapi import APIRouter, Query, Request

from app.auth.dependencies import ERRORS, Caller
from app.auth.principal import Scope
from app.auth.users import Users
from app.db.tables import utc_now
from app.errors import InvalidRequest
from app.usage.report import Report
from app.usage.schemas import Me, UsageLine, UsageReport

router = APIRouter(prefix="/v1", tags=["account"], responses=ERRORS)


@router.get("/me")
async def who_am_i(caller: Caller, request: Request) -> Me:
    """The caller, with role and plan."""
    users: Users = request.app.state.users
    return Me.model_validate(await users.get(caller.user_id))


@router.get("/usage")
async def my_usage(
    caller: Caller,
    request: Request,
    first: Annotated[dt.date | None, Query(alias="from")] = None,
    last: Annotated[dt.date | None, Query(alias="to")] = None,
) -> UsageReport:
    """What the caller spent, by day and model; this month unless other days are asked for."""
    caller.require(Scope.READ)
    report: Report = request.app.state.report
    today = utc_now().date()
    last = last or today
    first = first or last.replace(day=1)
    if first > last:
        raise InvalidRequest("from: must not be after to.", param="from")
    lines = await report.lines(caller.user_id, first, last)
    return UsageReport(
        day=await report.period(caller.user_id, today, today),
        month=await report.period(caller.user_id, today.replace(day=1), today),
        data=[UsageLine.model_validate(line, from_attributes=True) for line in lines],
    )
