"""What is written into the ledger: entries that open, keep and close attempts.

Times are left to the transaction, as the database's clock decides them.
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
# An attempt's lease outlives its deadline by this, so that nobody settles what still runs.
LEASE_MARGIN = dt.timedelta(seconds=15)


class Reserve(NamedTuple):
    """Reserves what an attempt can cost; the first one of a prediction begins that too."""

    caps: tuple[Cap, ...]
    # What may be stopped: the service, the provider, the model.
    targets: tuple[str, ...]
    lease: dt.timedelta
    attempt: Values
    prediction: Values | None


class Renew(NamedTuple):
    """Renews the lease of an attempt that is at work elsewhere under `remote_id`."""

    attempt_id: str
    remote_id: str
    lease: dt.timedelta


class Settle(NamedTuple):
    """Ends an attempt, and its prediction with the last one; either may be None.

    `usage` is what the attempt used, as far as it is known; `overdue` says that it is closed only
    if its lease has run out; `alert` is what the owner must hear of; `broken` says which bound of
    the attempt its usage broke, if it was one of tokens.
    """

    caps: tuple[Cap, ...]
    attempt: Values | None
    prediction: Values | None
    usage: Usage | None = None
    overdue: bool = False
    alert: Alert | None = None
    broken: str | None = None


Entry = Reserve | Renew | Settle


def opening(generation: Generation, attempt: Attempt, *, keep_content: bool) -> Reserve:
    """The entry that must be durable before `attempt` begins."""
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
        "bound_nano_usd": attempt.bound_nano_usd,
        "cost_nano_usd": 0,
        "price": _json(model.price.document()),
        "plan": principal.plan,
        "key_id": principal.key_id,
    }
    targets = ("service", f"provider:{model.provider}", f"model:{model.id}")
    prediction = _prediction(generation, model.provider, keep_content=keep_content)
    begins = prediction if attempt.number == 1 else None
    return Reserve(generation.caps, targets, lease_of(generation.deadline), row, begins)


def closing(
    generation: Generation,
    attempt: Attempt | None,
    ending: AttemptResult,
    *,
    last: bool,
    keep: bool,
) -> Settle:
    """The entry that ends `attempt` if there is one, and the prediction if it was the `last`."""
    row = broken = None
    if attempt is not None:
        broken = attempt.broken_bound(ending)
        state, cost = attempt.settlement(ending)
        remote_id = attempt.job.remote_id
        row = {
            "id": attempt.id,
            "state": state,
            "cost_nano_usd": cost,
            "remote_id": remote_id,
            "provider_status": ending.provider_status,
            "reason": ending.reason,
        }
    ended = _ended(generation, ending, keep=keep) if last else None
    return Settle(generation.caps, row, ended, ending.usage, alert=ending.alert, broken=broken)


def correction(
    generation: Generation, attempt: Attempt, ending: AttemptResult, used: Usage
) -> Settle:
    """The entry that corrects an attempt that was paid at its bound, once its usage is known."""
    row = {
        "id": attempt.id,
        "state": "settled",
        "cost_nano_usd": pricing.cost(attempt.model.price, used),
        "remote_id": attempt.job.remote_id,
        "provider_status": ending.provider_status,
        "reason": ending.reason,
    }
    return Settle(generation.caps, row, None, used)


def abandoned(opened: Reserve) -> Settle:
    """The entry that takes an opening back: no byte left."""
    error = {"message": "The caller left before it began.", "code": "cancelled"}
    prediction = opened.prediction and {
        "id": opened.prediction["id"],
        "served_model": None,
        "provider": opened.prediction["provider"],
        "status": "cancelled",
        "outcome": "cancelled",
        "output": None,
        "error": _json(error),
        "latency_ms": 0,
        "cost_nano_usd": 0,
        **Usage()._asdict(),
    }
    row = {
        "id": opened.attempt["id"],
        "state": "released",
        "cost_nano_usd": 0,
        "remote_id": None,
        "provider_status": None,
        "reason": None,
    }
    return Settle(opened.caps, row, prediction)


def lease_of(deadline: Deadline) -> dt.timedelta:
    """How long work within `deadline` is left alone."""
    return dt.timedelta(seconds=deadline.remaining) + LEASE_MARGIN


def _prediction(generation: Generation, provider: str, *, keep_content: bool) -> Values:
    call = generation.call
    return {
        "id": generation.id,
        "user_id": call.principal.user_id,
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


def _ended(generation: Generation, ending: AttemptResult, *, keep: bool) -> Values:
    usage = ending.usage or Usage()
    keep = keep and generation.call.keep_output
    return {
        "id": generation.id,
        "served_model": generation.model.id,
        "provider": generation.model.provider,
        "status": ending.status,
        "outcome": ending.outcome.value,
        "output": _json(ending.output if keep else None),
        "error": _json(ending.error.body()["error"] if ending.error else None),
        "latency_ms": generation.latency_ms,
        "cost_nano_usd": generation.cost_nano_usd,
        **usage._asdict(),
    }


def _json(value: Any) -> str | None:
    """A document as a column keeps it."""
    return None if value is None else encode(value).decode()
