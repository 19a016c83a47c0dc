"""Bodies of `/v1/keys`."""

from typing import Annotated

from pydantic import Field

from gateway.accounts.principals import KeyLimits, Scope
from gateway.schemas.base import Moment, Name, Record, RequestBody, Time

MAX = 100_000_000
MAX_NANO_USD = 10**18
Rate = Annotated[int, Field(ge=1, le=MAX)]
Budget = Annotated[int, Field(ge=0, le=MAX_NANO_USD)]


class KeyRequest(RequestBody):
    name: Name
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(
        default=[Scope.GENERATE, Scope.READ], min_length=1
    )
    expires_at: Moment | None = None
    requests_per_minute: Rate | None = None
    tokens_per_minute: Rate | None = None
    concurrent_generations: Rate | None = None
    daily_budget_nano_usd: Budget | None = None
    monthly_budget_nano_usd: Budget | None = None

    @property
    def limits(self) -> KeyLimits:
        return KeyLimits(*(getattr(self, name) for name in KeyLimits._fields))


class ApiKey(Record):
    id: str
    name: str
    scopes: list[Scope]
    created_at: Time
    expires_at: Time | None
    last_used_at: Time | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrent_generations: int | None
    daily_budget_nano_usd: int | None
    monthly_budget_nano_usd: int | None


class CreatedKey(ApiKey):
    """A key with its secret, which is shown this once."""

    secret: str = ""
