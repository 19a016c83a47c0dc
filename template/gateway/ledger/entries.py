"""The entries of the ledger: they reserve, renew and settle attempts.

The columns of each row are listed here alone: `transaction` derives its statements from them. The
transaction adds the times, by the database's clock.
"""

import datetime as dt
from typing import Any, NamedTuple

from gateway import pricing
from gateway.json_text import encode
from gateway.ledger.budget import Alert
from gateway.pipeline.generation import Attempt, AttemptResult, Generation
from gateway.policy import Cap
from gateway.providers.base import Deadline, Usage

Values = dict[str, Any]
# The lease of an attempt ends this long after its deadline, so that the sweeper does not settle a
# call that still runs.
LEASE_MARGIN = dt.timedelta(seconds=15)


class Reserve(NamedTuple):
    """Reserves the maximum cost of an attempt; the first of a prediction inserts that, too.

    `targets` are what can be stopped: the service, the provider and the model.
    """

    caps: tuple[Cap, ...]
    targets: tuple[str, ...]
    lease: dt.timedelta
    attempt: Values
    prediction: Values | None


class Renew(NamedTuple):
    """Renews the lease of an attempt whose work runs at the provider under `remote_id`."""

    attempt_id: str
    remote_id: str
    lease: dt.timedelta


class Settle(NamedTuple):
    """Ends an attempt, and with the last attempt its prediction; either may be None.

    `usage` is the attempt's usage as far as it is known. With `overdue`, the attempt is settled
    only if its lease has run out. `alert` is raised in the same transaction. `exceeded` says how
    the usage exceeded the attempt's maximum of tokens, if it did.
    """

    caps: tuple[Cap, ...]
    attempt: Values | None
    prediction: Values | None
    usage: Usage | None = None
    overdue: bool = False
    alert: Alert | None = None
    exceeded: str | None = None


Entry = Reserve | Renew | Settle


def reserve_entry(generation: Generation, attempt: Attempt, *, keep_content: bool) -> Reserve:
    """The entry that must be durable before `attempt` sends anything."""
    call, model = generation.call, attempt.model
    principal = call.principal
    row = {
        "id": attempt.id,
        "prediction_id": generation.id,
        "user_id": principal.user_id,
        "number": attempt.number,
        "provider": model.provider,
        "model": model.id,
        "state": "reserved",
        "bound_nano_usd": attempt.max_cost,
        "cost_nano_usd": 0,
        "price": _json(model.price.document()),
        "plan": principal.plan,
        "key_id": principal.key_id,
        "team_id": principal.team_id,
    }
    targets = ("service", f"provider:{model.provider}", f"model:{model.id}")
    prediction = None
    if attempt.number == 1:
        prediction = _new_prediction(generation, model.provider, keep_content=keep_content)
    return Reserve(generation.caps, targets, lease_of(generation.deadline), row, prediction)


def settle_entry(
    generation: Generation,
    attempt: Attempt | None,
    result: AttemptResult,
    *,
    last: bool,
    keep: bool,
) -> Settle:
    """The entry that ends `attempt`, if there is one, and after the `last` the prediction.

    `keep` stores the output in the prediction.
    """
    row = exceeded = None
    if attempt is not None:
        exceeded = attempt.exceeded_maximum(result)
        row = _settled_attempt(attempt, result, *attempt.settlement(result))
    finished = _finished_generation(generation, result, keep=keep) if last else None
    return Settle(
        generation.caps, row, finished, result.usage, alert=result.alert, exceeded=exceeded
    )


def correction_entry(
    generation: Generation, attempt: Attempt, result: AttemptResult, used: Usage
) -> Settle:
    """The entry that corrects an attempt that was settled at its maximum, by its usage."""
    cost = pricing.cost(attempt.model.price, used)
    row = _settled_attempt(attempt, result, "settled", cost)
    return Settle(generation.caps, row, None, used)


def release_entry(reserved: Reserve) -> Settle:
    """The entry that takes a reservation back whose caller left before anything was sent."""
    error = {"message": "The caller left before it began.", "code": "cancelled"}
    row, prediction = SettledAttempt(reserved.attempt["id"], "released", 0), None
    if reserved.prediction:
        finished = FinishedPrediction(
            id=reserved.prediction["id"],
            provider=reserved.prediction["provider"],
            status="cancelled",
            outcome="cancelled",
            error=_json(error),
        )
        prediction = finished.values(None)
    return Settle(reserved.caps, row._asdict(), prediction)


class SettledAttempt(NamedTuple):
    """The columns of an attempt that its settlement changes."""

    id: str
    state: str
    cost_nano_usd: int
    remote_id: str | None = None
    provider_status: int | None = None
    reason: str | None = None


class FinishedPrediction(NamedTuple):
    """The columns of a prediction that its end changes; `output` and `error` are JSON."""

    id: str
    provider: str
    status: str
    outcome: str
    served_model: str | None = None
    output: str | None = None
    error: str | None = None
    latency_ms: int = 0
    cost_nano_usd: int = 0

    def values(self, usage: Usage | None) -> Values:
        """All columns, with those of the usage; zero where it is unknown."""
        return {**self._asdict(), **(usage or Usage())._asdict()}


def lease_of(deadline: Deadline) -> dt.timedelta:
    """How long an attempt within `deadline` belongs to its process."""
    return dt.timedelta(seconds=deadline.remaining) + LEASE_MARGIN


def _settled_attempt(attempt: Attempt, result: AttemptResult, state: str, cost: int) -> Values:
    settled = SettledAttempt(
        id=attempt.id,
        state=state,
        cost_nano_usd=cost,
        remote_id=attempt.request.remote_id,
        provider_status=result.provider_status,
        reason=result.reason,
    )
    return settled._asdict()


def _new_prediction(generation: Generation, provider: str, *, keep_content: bool) -> Values:
    call = generation.call
    return {
        "id": generation.id,
        "user_id": call.principal.user_id,
        "team_id": call.principal.team_id,
        "request_id": call.request_id,
        "idempotency_key": call.idempotency_key,
        "kind": call.kind,
        "feature": call.feature,
        "model": call.model,
        "provider": provider,
        "status": "running",
        "input": _json((call.given or call.body) if keep_content else None),
        "input_tokens": 0,
        "output_tokens": 0,
        "microseconds": 0,
        "cost_nano_usd": 0,
    }


def _finished_generation(generation: Generation, result: AttemptResult, *, keep: bool) -> Values:
    keep = keep and generation.call.keep_output
    finished = FinishedPrediction(
        id=generation.id,
        served_model=generation.model.id,
        provider=generation.model.provider,
        status=result.status,
        outcome=result.outcome.value,
        output=_json(result.output if keep else None),
        error=_json(result.error.body()["error"] if result.error else None),
        latency_ms=generation.latency_ms,
        cost_nano_usd=generation.cost_nano_usd,
    )
    return finished.values(result.usage)


def _json(value: Any) -> str | None:
    """A document as its column stores it."""
    return None if value is None else encode(value).decode()
