"""Bodies of `/v1/admin/…`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field
from sqlalchemy import Row

from app.schemas.predictions import Prediction
from gateway.accounts.principals import Role
from gateway.prices import MAX_USD, NANO
from gateway.schemas.base import Day, Record, RequestBody, Time
from gateway.schemas.usage import Me

Amount = Annotated[int, Field(ge=0, le=MAX_USD * NANO)]


class StopRequest(RequestBody):
    """`target` is `service`, `provider:…` or `model:…`; `running` ends running calls, too."""

    reason: str
    target: str = "service"
    running: bool = False


class StartRequest(RequestBody):
    target: str = "service"


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


class UserChange(RequestBody):
    """What is absent stays."""

    role: Annotated[Role, Field(strict=False)] | None = None
    plan: str | None = None
    disabled: bool | None = None


class User(Me):
    """A user as administrators see them. `raised_until` is the last day of the raised budgets."""

    disabled_at: Time | None
    team_id: str | None
    team_role: Literal["owner", "member"] | None
    raised_daily_nano_usd: int | None
    raised_monthly_nano_usd: int | None
    raised_until: str | None


class UserRequest(RequestBody):
    email: str
    role: Annotated[Role, Field(strict=False)] = Role.USER
    plan: str = "free"


class CreatedUser(User):
    """A user with a credential, which is shown this once; null if the log-in makes none."""

    credential: str | None = None


class BudgetRaise(RequestBody):
    """Budgets of a user until the end of a UTC day, where they are higher than the plan's."""

    daily_nano_usd: Amount | None = None
    monthly_nano_usd: Amount | None = None
    until: Annotated[Day, Field(strict=False)]


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
