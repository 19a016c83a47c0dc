"""`/v1/predictions`: any model with any input, and the caller's own records."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Response

from app.dependencies import ERRORS, ContextDep, CurrentUser, EngineDep
from app.routes.base import AskedPage, AskedSearch, DirectRoute
from gateway.accounts.principals import Scope
from gateway.config import GatewayConfig
from gateway.db.tables import predictions
from gateway.errors import (
    ContextLengthExceeded,
    InvalidRequest,
    RequestTooLarge,
    ServiceError,
    UnsupportedParameter,
)
from gateway.gateway import body_of
from gateway.http.context import GenerationContext
from gateway.http.query import StrictRoute
from gateway.ledger.records import Records, owned
from gateway.pipeline.generation import Generation
from gateway.policy import Model
from gateway.schemas.base import Page
from gateway.schemas.predictions import Feedback, Prediction, PredictionRequest

# The errors of the input. Their `param` is a path within `input`.
REFUSALS = (ContextLengthExceeded, InvalidRequest, RequestTooLarge, UnsupportedParameter)

router = APIRouter(
    prefix="/v1/predictions", tags=["predictions"], responses=ERRORS, route_class=StrictRoute
)


async def _prefer(prefer: Annotated[str, Header()] = "") -> None:
    """Declares the header, which the endpoint reads from the request."""


generations = APIRouter(tags=["predictions"], responses=ERRORS, route_class=DirectRoute)


@generations.post(
    "/v1/predictions",
    status_code=201,
    response_model=None,
    responses={201: {"model": Prediction}, 202: {"model": Prediction}},
    dependencies=[Depends(_prefer)],
)
async def create_prediction(body: PredictionRequest, context: ContextDep) -> Response:
    """Ask any model. Waits for the answer, or with `Prefer: respond-async` answers 202 at once."""
    later = "respond-async" in _preferences(context.request.headers.get("prefer", ""))
    return await context.idempotent(body, lambda: _predict(context, body, later=later), later=later)


async def _predict(context: GenerationContext, body: PredictionRequest, *, later: bool) -> Response:
    engine = context.engine
    model = engine.policy.model(body.model)
    seconds = _seconds(model, engine.config) if later else None
    call = context.call(model.kind, model.id, body_of(model.kind, body.input), seconds)
    call.given = body.input
    with _named_in(body.input):
        generation = await engine.pipeline.begin(call)
    if later:
        engine.runner.start(generation)
        prediction = await _begun(engine.records, generation)
        location = f"/v1/predictions/{generation.id}"
        return _answer(prediction, 202, {**generation.headers, "Location": location})
    with _named_in(body.input):
        reply = await engine.pipeline.finish(generation)
    prediction = await _begun(engine.records, generation)
    whole = prediction.model_copy(update={"input": body.input, "output": reply.output})
    return _answer(whole, 201, generation.headers)


@router.get("")
async def list_predictions(
    caller: CurrentUser, page: AskedPage, search: AskedSearch
) -> Page[Prediction]:
    """The caller's records, newest first; those that match all that is looked for."""
    caller.require(Scope.READ)
    query = search.of(owned(caller.user_id))
    return await page.of(Prediction.of, query, predictions, search.seconds)


@router.get("/{prediction_id}")
async def get_prediction(caller: CurrentUser, prediction_id: str, engine: EngineDep) -> Prediction:
    """One record, also while it runs."""
    caller.require(Scope.READ)
    return await _read(engine.records, caller.user_id, prediction_id)


@router.delete("/{prediction_id}", status_code=204)
async def erase_prediction(caller: CurrentUser, prediction_id: str, engine: EngineDep) -> None:
    """Cancel it if it runs, and erase its content. The ledger keeps what it cost."""
    caller.require(Scope.GENERATE)
    await engine.records.get(caller.user_id, prediction_id)
    await engine.runner.cancel(prediction_id)
    await engine.records.erase(caller.user_id, prediction_id)


@router.put("/{prediction_id}/feedback")
async def rate_prediction(
    caller: CurrentUser, prediction_id: str, body: Feedback, engine: EngineDep
) -> Feedback:
    """Say whether an answer was good."""
    caller.require(Scope.GENERATE)
    await engine.records.rate(caller.user_id, prediction_id, body.model_dump())
    return body


@contextmanager
def _named_in(given: Mapping[str, Any]) -> Iterator[None]:
    """Makes the `param` of an error of the input a path in the body of a prediction."""
    try:
        yield
    except REFUSALS as error:
        error.param = _place(error.param, given)
        raise


def _place(param: str | None, given: Mapping[str, Any]) -> str | None:
    """Where in the body of a prediction the parameter of a chat or embedding is."""
    name = (param or "").partition(".")[0]
    if name in given:
        return f"input.{param}"
    return "input.prompt" if name == "messages" else param


def _preferences(header: str) -> set[str]:
    """The names in `Prefer` (RFC 7240), without their values and parameters."""
    return {given.partition(";")[0].strip().lower() for given in header.split(",")}


def _answer(prediction: Prediction, status: int, headers: Mapping[str, str]) -> Response:
    return Response(prediction.model_dump_json(), status, headers, "application/json")


async def _read(records: Records, user_id: str, prediction_id: str) -> Prediction:
    return Prediction.of(await records.get(user_id, prediction_id))


async def _begun(records: Records, generation: Generation) -> Prediction:
    """The record of what is paid, whether it can be read or not."""
    try:
        return await _read(records, generation.call.principal.user_id, generation.id)
    except ServiceError as error:
        error.begun = True
        raise


def _seconds(model: Model, config: GatewayConfig) -> float:
    """No client waits, so a model that is billed by time may take all the time that it may bill."""
    return max(config.request_deadline_seconds, model.max_seconds or 0)
