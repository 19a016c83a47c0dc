"""The answers of OpenAI's routes, for the API's description.

They are sent as the provider gave them, and may have fields that are not named here.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict


class OpenAIObject(BaseModel):
    model_config = ConfigDict(extra="allow")


class ChatMessage(OpenAIObject):
    role: Literal["assistant"]
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class ChatChoice(OpenAIObject):
    index: int
    message: ChatMessage
    finish_reason: str | None


class ChatUsage(OpenAIObject):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(OpenAIObject):
    """A chat's answer; `model` is the public name of the model that served."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: ChatUsage | None = None


class ResponseUsage(OpenAIObject):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponseObject(OpenAIObject):
    """An answer of `/v1/responses`."""

    id: str
    object: Literal["response"]
    created_at: float
    model: str
    status: str
    output: list[dict[str, Any]]
    usage: ResponseUsage | None = None
    store: Literal[False]
    metadata: dict[str, Any]


class Embedding(OpenAIObject):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(OpenAIObject):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(OpenAIObject):
    """Vectors in the order of the texts, as numbers or as base64 of 32-bit floats."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ModelEntry(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelEntry]


STREAM = {"text/event-stream": {"schema": {"type": "string"}}}
CHAT_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": ChatCompletion, "content": STREAM}}
RESPONSE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"model": ResponseObject, "content": STREAM}
}
EMBEDDING_ANSWERS: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingList}}
