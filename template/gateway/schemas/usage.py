"""Bodies of `/v1/me` and `/v1/usage`. Money is in nano-dollars."""

from pydantic import BaseModel, ConfigDict

from gateway.schemas.base import Time


class Me(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: str
    email: str
    role: str
    plan: str
    created_at: Time


class Period(BaseModel):
    """What was spent, and what running calls can still cost. No cap is null."""

    spent_nano_usd: int
    reserved_nano_usd: int
    cap_nano_usd: int | None


class UsageLine(BaseModel):
    """A day's sums by one of user, model and outcome; the outcome of what runs is null.

    Cached and written tokens are parts of `input_tokens`; `outputs` are billed by the piece.
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
    day: Period
    month: Period
    data: list[UsageLine]
