"""What administrators see of the engine: stops, providers, attempts and the audit."""

from typing import Any, Literal, Self

from pydantic import BaseModel
from sqlalchemy import Row

from gateway.schemas.base import Record, Time
from gateway.schemas.predictions import Prediction


class Stop(Record):
    """A stop: set by a person, or a quarantine after a call exceeded its maximum."""

    target: str
    kind: Literal["stopped", "quarantined"]
    reason: str
    running: bool
    actor_id: str | None
    at: Time


class StopList(BaseModel):
    data: list[Stop]


class ProviderState(Record):
    """A model at its provider: whether it may be called now, and what its quota has left."""

    provider: str
    model: str
    state: Literal["closed", "open", "half_open", "stopped", "quarantined"]
    until: Time | None
    remaining_requests: int | None
    remaining_tokens: int | None


class Attempt(Record):
    """A call of a provider. `reason` is what the provider said of a failure, under its status."""

    number: int
    model: str
    state: Literal["reserved", "sent", "settled", "released", "uncertain"]
    cost_nano_usd: int
    provider_status: int | None
    reason: str | None


class UserPrediction(Prediction):
    user_id: str
    feature: str | None
    attempts: list[Attempt]


class AuditEntry(Record):
    """The actor is a user's id or, of the command line, `USER@HOST`."""

    id: str
    at: Time
    actor_id: str | None
    action: str
    target: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    request_id: str | None

    @classmethod
    def of(cls, row: Row[Any]) -> Self:
        shown = row._asdict()
        return cls.model_validate({**shown, "actor_id": row.actor_id or row.operator})
