"""Makes one small real call of a model and records the result."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gateway.policy import Model
from gateway.providers.base import Body, Deadline, Provider, ProviderFailure, ProviderRequest, Usage
from gateway.providers.completion import Transcript, choices_of, text_of

# The answer has many more tokens than the limit, but ends soon where a server ignores the limit.
QUESTION = (
    "Write the numbers from 1 to 300 in figures, with a comma and a space between them, in one "
    "line, without an introduction, an explanation, a comment or an ending of any kind."
)
TEXT = "One small text."
OUTPUT_TOKENS = 16
SECONDS = 60.0
# Stop reading here if a server ignores the limit.
MAX_CHARS = 20_000


@dataclass(slots=True)
class Seen:
    """The result of a call. `reported` is the usage in the provider's format."""

    request: ProviderRequest
    failure: ProviderFailure | None = None
    usage: Usage | None = None
    reported: Mapping[str, Any] = field(default_factory=dict)
    finish_reason: str | None = None
    characters: int = 0
    answers: int = 0
    """Chunks with a choice, or vectors."""


def body_of(model: Model) -> Body:
    """The smallest request that shows whether the server limits the output."""
    if model.kind == "embedding":
        return {"input": TEXT}
    limit = min(OUTPUT_TOKENS, model.max_output_tokens)
    return {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": limit}


async def probe(provider: Provider, model: Model) -> Seen:
    """Call the model once, within a minute. A failure is part of the result."""
    work = _embed if model.kind == "embedding" else _chat
    return await _seen(model, body_of(model), partial(work, provider))


async def probe_responses(provider: Provider, model: Model) -> Seen:
    """Call the model once by `/v1/responses`, within a minute."""
    limit = min(OUTPUT_TOKENS, model.max_output_tokens)
    body = {"input": QUESTION, "max_output_tokens": limit}
    return await _seen(model, body, partial(_respond, provider))


async def _seen(model: Model, body: Body, work: Callable[[Seen], Awaitable[None]]) -> Seen:
    seen = Seen(ProviderRequest(model, body, Deadline(SECONDS)))
    try:
        async with seen.request.deadline.scope():
            await work(seen)
    except ProviderFailure as failure:
        seen.failure = failure
    except TimeoutError:
        seen.failure = ProviderFailure(f"no complete answer within {SECONDS:g} s")
    return seen


async def _embed(provider: Provider, seen: Seen) -> None:
    reply = await provider.answer(seen.request)
    seen.usage = reply.usage
    seen.answers = len(reply.output["data"])


async def _respond(provider: Provider, seen: Seen) -> None:
    seen.usage = (await provider.answer(seen.request)).usage


async def _chat(provider: Provider, seen: Seen) -> None:
    transcript = Transcript()
    async with aclosing(provider.stream(seen.request)) as source:
        async for chunks in source:
            for chunk in chunks:
                transcript.add(chunk)
                _note(seen, chunk)
            seen.usage = transcript.usage
            if seen.characters > MAX_CHARS:
                return


def _note(seen: Seen, chunk: Body) -> None:
    usage = chunk.get("usage")
    seen.reported = usage if isinstance(usage, dict) else seen.reported
    for choice in choices_of(chunk):
        seen.answers += 1
        seen.finish_reason = choice.get("finish_reason") or seen.finish_reason
        delta = choice.get("delta")
        seen.characters += len(text_of(delta.get("content")) if isinstance(delta, dict) else "")
