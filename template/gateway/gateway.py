"""Generations for one user, from any route, command or background job: see `gateway/README.md`."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError
from starlette.types import Receive

from gateway.accounts.principals import Principal
from gateway.errors import InvalidRequest, ProviderError
from gateway.http.bodies import parse_part
from gateway.http.chat_stream import ChatStream
from gateway.http.event_stream import unless_left
from gateway.ids import new_id
from gateway.pipeline.generation import Generation, GenerationRequest, require_sendable
from gateway.pipeline.pipeline import Pipeline
from gateway.policy import Kind, Policy
from gateway.providers.base import Body, Chunks, Reply
from gateway.providers.completion import choices_of, text_of
from gateway.schemas.chat import ChatInput
from gateway.schemas.embeddings import EmbeddingInput

Answer = TypeVar("Answer", bound=BaseModel)
Messages = str | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a generation.

    `output` is the provider's answer, in OpenAI's format for chats and embeddings. `model` is the
    public name of the model that answered. `cost_nano_usd` is the cost of all attempts.
    """

    output: Any
    model: str
    prediction_id: str
    cost_nano_usd: int

    @property
    def text(self) -> str:
        """The text of a chat's first choice; empty if it has none."""
        choice = next(iter(choices_of(self.output)), {})
        message = choice.get("message")
        return text_of(message.get("content")) if isinstance(message, dict) else ""

    @property
    def vectors(self) -> list[list[float]]:
        """The vectors of an embedding, in the order of its texts."""
        return [entry["embedding"] for entry in self.output["data"]]

    def parsed(self, schema: type[Answer]) -> Answer:
        """The text as `schema`. Raises `ProviderError` if it does not match."""
        try:
            return schema.model_validate_json(self.text)
        except ValidationError as error:
            place = ".".join(map(str, error.errors(include_input=False)[0]["loc"])) or "the whole"
        # Without its cause, whose words hold the answer: content does not reach the log.
        raise ProviderError(f"The model's answer does not match the schema: see {place}.")


class TextStream:
    """The stream of a chat's answer: iterate over its text, or send `response()`.

    Iterate within `async with`, which settles the generation even if the loop ends early.
    """

    def __init__(self, generation: Generation, first: list[Body], rest: Chunks) -> None:
        self._generation = generation
        self._first = first
        self._rest = rest

    def response(self) -> Response:
        """The server-sent events of `POST /v1/chat/completions`."""
        return ChatStream(self._generation, self._first, self._rest, with_usage=False)

    async def __aenter__(self) -> "TextStream":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._rest.aclose()

    async def __aiter__(self) -> AsyncIterator[str]:
        for piece in _pieces(self._first):
            yield piece
        async for chunks in self._rest:
            for piece in _pieces(chunks):
                yield piece


class Gateway:
    """The gateway for one user. Calls are limited, paid and recorded under `feature`.

    All methods raise errors of `gateway.errors`, mainly `RateLimited`, `BudgetExceeded`,
    `ProviderError` and, for invalid parameters, `InvalidRequest`. A route need not catch them: each
    is sent with its status and code.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        policy: Policy,
        user: Principal,
        *,
        feature: str,
        seconds: float,
        request_id: str | None = None,
        idempotency_key: str | None = None,
        on_begin: Callable[[Generation], None] = lambda _: None,
        receive: Receive | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._policy = policy
        self.user = user
        self.feature = feature
        self._seconds = seconds
        self._request_id = request_id or new_id("req")
        self._idempotency_key = idempotency_key
        self._on_begin = on_begin
        self._receive = receive

    async def chat(
        self,
        model: str,
        messages: Messages,
        *,
        schema: type[BaseModel] | None = None,
        **parameters: Any,
    ) -> Result:
        """A model's answer to a text or a conversation.

        `parameters` are those of OpenAI's chat completions. `schema` asks for JSON of its form,
        which `Result.parsed` reads.
        """
        call = self._call("chat", model, _chat_body(messages, schema, parameters))
        return await self._finish(call)

    async def stream(self, model: str, messages: Messages, **parameters: Any) -> TextStream:
        """The same as it is written. What fails before the first piece is raised here."""
        call = self._call("chat", model, _chat_body(messages, None, parameters))
        work = self._pipeline.stream(call)
        begun = await (unless_left(self._receive, work) if self._receive else work)
        self._on_begin(begun[0])
        return TextStream(*begun)

    async def embed(self, model: str, texts: str | Sequence[str], **parameters: Any) -> Result:
        """Vectors of texts."""
        given = texts if isinstance(texts, str) else list(texts)
        body = _checked({"input": given, **parameters}, EmbeddingInput).body()
        call = self._call("embedding", model, body)
        call.keep_output = False  # Vectors are large, and can be computed again.
        return await self._finish(call)

    async def predict(self, model: str, given: Mapping[str, Any]) -> Result:
        """The answer of any model, to an input in the format of `POST /v1/predictions`."""
        kind = self._policy.model(model).kind
        try:
            body = body_of(kind, dict(given))
        except RequestValidationError as error:
            raise _invalid(error) from error
        call = self._call(kind, model, body)
        call.given = dict(given)
        return await self._finish(call)

    def _call(self, kind: Kind, model: str, body: Body) -> GenerationRequest:
        require_sendable(body)
        return GenerationRequest(
            self.user,
            kind,
            model,
            body,
            self._request_id,
            self._seconds,
            self._idempotency_key,
            feature=self.feature,
        )

    async def _finish(self, call: GenerationRequest) -> Result:
        generation = await self._pipeline.begin(call)
        self._on_begin(generation)
        reply: Reply = await self._pipeline.finish(generation)
        cost = generation.cost_nano_usd
        return Result(reply.output, generation.model.id, generation.id, cost)


def body_of(kind: Kind, given: dict[str, Any]) -> Body:
    """The input of a prediction for a model of `kind`, with the checks of the kind's own route.

    A chat accepts `prompt` for a single message. Raises as `parse_part`.
    """
    if kind == "task":
        return given
    if kind == "chat" and isinstance(given.get("prompt"), str) and "messages" not in given:
        given = {**given, "messages": [{"role": "user", "content": given["prompt"]}]}
        del given["prompt"]
    if kind == "chat":
        return parse_part(given, ChatInput, "input").body()
    return parse_part(given, EmbeddingInput, "input").body()


def _chat_body(
    messages: Messages, schema: type[BaseModel] | None, parameters: Mapping[str, Any]
) -> Body:
    said = (
        [{"role": "user", "content": messages}]
        if isinstance(messages, str)
        else [dict(message) for message in messages]
    )
    given = {"messages": said, **parameters}
    if schema is not None:
        form = {"name": schema.__name__, "schema": schema.model_json_schema()}
        given["response_format"] = {"type": "json_schema", "json_schema": form}
    return _checked(given, ChatInput).body()


def _checked(given: dict[str, Any], schema: type[Answer]) -> Answer:
    try:
        return parse_part(given, schema)
    except RequestValidationError as error:
        raise _invalid(error) from error


def _invalid(error: RequestValidationError) -> InvalidRequest:
    """The first error, without the input."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    return InvalidRequest(f"{place}: {first['msg']}.", param=place or None)


def _pieces(chunks: Sequence[Body]) -> list[str]:
    """The pieces of text of the first choice."""
    deltas = [
        choice.get("delta")
        for chunk in chunks
        for choice in choices_of(chunk)
        if choice.get("index", 0) == 0
    ]
    texts = [text_of(delta.get("content")) for delta in deltas if isinstance(delta, dict)]
    return [text for text in texts if text]
