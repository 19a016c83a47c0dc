"""Bodies of `/v1/predictions`."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, StringConstraints, ValidationError
from sqlalchemy import Row

from app.api import RequestBody, Time, wrong_body
from app.chat.schemas import ChatInput
from app.embeddings.schemas import EmbeddingInput
from app.policy import Kind


class PredictionRequest(RequestBody):
    model: str
    input: dict[str, Any]


class Feedback(RequestBody):
    rating: Literal["up", "down"]
    comment: Annotated[str, StringConstraints(max_length=4000)] | None = None


class PredictionUsage(BaseModel):
    input_tokens: int
    output_tokens: int
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
    def of(cls, row: Row[Any]) -> Self:
        values = row._asdict()
        usage = {**values, "seconds": row.microseconds / 1e6}
        return cls.model_validate({**values, "usage": usage})


def body_of(kind: Kind, given: dict[str, Any]) -> dict[str, Any]:
    """The input of a model of `kind`, checked like that of the kind's own route.

    A chat takes `prompt` for a single message. Raises `RequestValidationError`.
    """
    if kind == "task":
        return given
    if kind == "chat" and isinstance(given.get("prompt"), str) and "messages" not in given:
        given = {**given, "messages": [{"role": "user", "content": given["prompt"]}]}
        del given["prompt"]
    try:
        return (ChatInput if kind == "chat" else EmbeddingInput).model_validate(given).body()
    except ValidationError as error:
        raise wrong_body(error, "input") from error
