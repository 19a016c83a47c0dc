"""`/v1/admin/…`: money, outcomes and the emergency stop, for the owner."""

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from sqlalchemy import Select, select

from app.dependencies import ERRORS, Administrator, EngineDep, require_reader
from app.routes.base import AskedPage, AskedSearch
from app.routes.usage import AskedDays
from app.schemas.admin import StartRequest, StopRequest
from gateway.accounts.users import USER_ID
from gateway.circuit_breaker.window import CircuitStatus
from gateway.db.tables import audit, predictions
from gateway.errors import LimiterUnavailable
from gateway.http.query import StrictRoute
from gateway.kill_switch import SERVICE, KillSwitch
from gateway.ledger.attempt_list import attempts_of
from gateway.ledger.usage_report import GroupBy
from gateway.schemas.admin import AuditEntry, ProviderState, Stop, StopList, UserPrediction
from gateway.schemas.base import Page
from gateway.schemas.usage import UsageReport

router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=ERRORS, route_class=StrictRoute)
READING = [Depends(require_reader)]
UserId = Annotated[str, Query(pattern=f"^{USER_ID.pattern}$")]


@router.get("/usage", dependencies=READING, response_model_exclude_unset=True)
async def service_usage(
    engine: EngineDep, days: AskedDays, group_by: GroupBy = "model"
) -> UsageReport:
    """The spending of the whole service, by day and user, model or outcome. Default: this month."""
    return await engine.report.of_service(days, group_by)


@router.get("/predictions", dependencies=READING)
async def list_predictions(
    engine: EngineDep, page: AskedPage, search: AskedSearch, user_id: UserId | None = None
) -> Page[UserPrediction]:
    """Everybody's records with their attempts, newest first; erased ones without content."""
    query: Select[Any] = select(predictions)
    if user_id is not None:
        query = query.where(predictions.c.user_id == user_id)
    rows, next_cursor = await page.rows(search.of(query), predictions, search.seconds)
    made = await attempts_of(engine.database, [row.id for row in rows])
    data = [UserPrediction.of(row, attempts=made[row.id]) for row in rows]
    return Page(data=data, next_cursor=next_cursor)


@router.get("/providers", dependencies=READING)
async def list_providers(engine: EngineDep) -> list[ProviderState]:
    """Each model's circuit, whether it is stopped, and what is left of its provider's quota."""
    circuits = await engine.circuit_breaker.states(engine.policy.models.values())
    stopped = {(row.target, row.kind) for row in await engine.kill_switch.all()}
    return [_state(circuit, stopped) for circuit in circuits]


@router.get("/audit", dependencies=READING)
async def list_audit(page: AskedPage) -> Page[AuditEntry]:
    """The audit: each change with its actor, newest first."""
    return await page.of(AuditEntry.of, select(audit), audit)


@router.post("/stop")
async def stop(actor: Administrator, body: StopRequest, engine: EngineDep) -> StopList:
    """End all generation, or that of a provider or a model, on every replica within a second."""
    await engine.kill_switch.stop(body.target, body.reason, running=body.running, actor=actor)
    return await _stopped(engine.kill_switch)


@router.post("/start")
async def start(
    actor: Administrator, engine: EngineDep, body: StartRequest | None = None
) -> StopList:
    """Lift a stop and the cooldowns of what it covers, and acknowledge that a model broke its
    bound; tells what is stopped still.
    """
    target = (body or StartRequest()).target
    await engine.kill_switch.start(target, actor)
    with suppress(LimiterUnavailable):  # Then as in the other processes, within a second.
        await engine.circuit_breaker.reset(engine.policy.models_of(target))
    return await _stopped(engine.kill_switch)


async def _stopped(stops: KillSwitch) -> StopList:
    return StopList(data=[Stop.model_validate(row) for row in await stops.all()])


def _state(circuit: CircuitStatus, stopped: set[tuple[str, str]]) -> ProviderState:
    """A circuit's state, or that its model was stopped or quarantined."""
    shown = ProviderState.model_validate(circuit)
    model = f"model:{circuit.model}"
    if (model, "quarantined") in stopped:
        return shown.model_copy(update={"state": "quarantined"})
    targets = (SERVICE, f"provider:{circuit.provider}", model)
    if any((target, "stopped") in stopped for target in targets):
        return shown.model_copy(update={"state": "stopped"})
    return shown
