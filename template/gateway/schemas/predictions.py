"""Bodies of `/v1/predictions`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, StringConstraints
from sqlalchemy import Row

from gateway.schemas.base import RequestBody, Time


class PredictionRequest(RequestBody):
    model: str
    input: dict[str, Any]


class Feedback(RequestBody):
    rating: Literal["up", "down"]
    comment: Annotated[str, StringConstraints(max_length=4000)] | None = None


class PredictionUsage(BaseModel):
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    outputs: int
    seconds: float


class Prediction(BaseModel):
    """A generation as it is recorded."""

    id: str
    model: str
    served_model: str | None
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    outcome: str | None
    input: Any
    output: Any
    error: dict[str, Any] | None
    usage: PredictionUsage
    cost_nano_usd: int
    latency_ms: int | None
    feedback: Feedback | None
    created_at: Time
    finished_at: Time | None

    @classmethod
    def of(cls, row: Row[Any], **more: Any) -> Self:
        values = row._asdict() | more
        usage = {**values, "seconds": row.microseconds / 1e6}
        return cls.model_validate({**values, "usage": usage})
