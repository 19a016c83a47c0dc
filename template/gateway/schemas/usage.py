"""Bodies of `/v1/me` and `/v1/usage`. Money is in nano-dollars."""

from pydantic import BaseModel

from gateway.schemas.base import Record, Time


class Me(Record):
    """The current user."""

    id: str
    email: str
    role: str
    plan: str
    created_at: Time


class Period(BaseModel):
    """Spent and reserved amounts of a period. The reserve is the upper bound of running calls.

    Without a cap, `cap_nano_usd` is null.
    """

    spent_nano_usd: int
    reserved_nano_usd: int
    cap_nano_usd: int | None


class UsageLine(BaseModel):
    """The sums of a day, grouped by user, model or outcome. Running generations have no outcome.

    `input_tokens` includes cached and written tokens; `outputs` are billed by the piece.
    """

    date: str
    user_id: str | None = None
    model: str | None = None
    outcome: str | None = None
    requests: int
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    outputs: int
    cost_nano_usd: int


class UsageReport(BaseModel):
    """The budgets and the usage of a user or the service."""

    day: Period
    month: Period
    data: list[UsageLine]
