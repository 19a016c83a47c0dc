"""Joins a user's embedding requests that arrive together into one call to the provider.

A request that is alone goes at once. Those that come while a call of the same user, model and
parameters is under way wait a few milliseconds for company, or until that call is over. Each gets
its own vectors and pays its share: shares add up to what the call used and cost, exactly.
"""

import asyncio
import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import to_json

from gateway import pricing
from gateway.pipeline.shares import Divided, divide
from gateway.providers.base import (
    BadAnswer,
    Blame,
    Body,
    Exchange,
    Provider,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
)
from gateway.providers.completion import FORM_ERRORS

GATHER_SECONDS = 0.005
MAX_INPUTS = 64

Answer = tuple[Reply, int | None]


class PendingRequest(NamedTuple):
    """A request: its inputs, the most that it can use, and where its answer is awaited."""

    request: ProviderRequest
    inputs: list[Any]
    max_usage: Usage
    answer: asyncio.Future[Answer]


class BatchKey(NamedTuple):
    """What requests must have in common: the user, the model and all parameters but the input."""

    user_id: str
    model: str
    are_texts: bool
    parameters: bytes


@dataclass(slots=True)
class _Queue:
    """The requests of a lane that wait, and how many of its calls are under way."""

    waiting: list[PendingRequest] = field(default_factory=list)
    in_flight: int = 0
    timer: asyncio.Handle | None = None


class Coalescer:
    """Asks providers for embeddings, for several requests at once where they arrive together."""

    def __init__(self) -> None:
        self._queues: dict[BatchKey, _Queue] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def answer(
        self, user_id: str, provider: Provider, request: ProviderRequest, max_usage: Usage
    ) -> Answer:
        """The answer to `request`, and its share of the cost in nano-dollars if it was joined.

        Raises what the provider raises. A joined call runs until no request waits for it.
        """
        pending = PendingRequest(
            request, _inputs(request.body), max_usage, asyncio.get_running_loop().create_future()
        )
        key = BatchKey(
            user_id, request.model.id, isinstance(pending.inputs[0], str), _parameters(request.body)
        )
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.append(pending)
        if queue.timer is None:
            loop, flush = asyncio.get_running_loop(), partial(self._flush, key, provider)
            # Requests that are handled in the same turn of the event loop go together.
            later = (
                loop.call_later(GATHER_SECONDS, flush) if queue.in_flight else loop.call_soon(flush)
            )
            queue.timer = later
        return await pending.answer

    def _flush(self, key: BatchKey, provider: Provider) -> None:
        """Send what waits."""
        queue = self._queues[key]
        if queue.timer is not None:
            queue.timer.cancel()
        waiting = [pending for pending in queue.waiting if not pending.answer.done()]
        queue.waiting, queue.timer = [], None
        for batch in _batches(waiting):
            self._begin(key, provider, batch)
        if not queue.in_flight:
            del self._queues[key]

    def _begin(self, key: BatchKey, provider: Provider, batch: list[PendingRequest]) -> None:
        """Make a call for `batch`, which ends when nobody waits for it any more."""
        self._queues[key].in_flight += 1
        call = asyncio.create_task(self._call(key, provider, batch))
        self._calls.add(call)
        call.add_done_callback(partial(self._ended, key, provider))
        for pending in batch:
            pending.answer.add_done_callback(partial(_leave, call, batch))

    async def _call(self, key: BatchKey, provider: Provider, batch: list[PendingRequest]) -> None:
        """Answer each of `batch`, by one call."""
        request = batch[0].request if len(batch) == 1 else _joined(batch)
        answers: Sequence[Answer | Exception]
        try:
            reply = await provider.answer(request)
            answers = _answers(request, reply, batch)
        except Exception as error:
            if len(batch) > 1 and _is_refusal(error):
                # One is at fault, and nothing was billed: the others must not suffer for it.
                for pending in batch:
                    if not pending.answer.done():
                        pending.request.exchange = Exchange()
                        self._begin(key, provider, [pending])
                return
            answers = _failures(request, error, batch)
        for pending, answer in zip(batch, answers, strict=True):
            pending.request.quota, pending.request.quota_at = request.quota, request.quota_at
            _give(pending.answer, answer)

    def _ended(self, key: BatchKey, provider: Provider, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        queue = self._queues[key]
        queue.in_flight -= 1
        if not queue.in_flight:
            self._flush(key, provider)


def _leave(
    call: asyncio.Task[None], batch: list[PendingRequest], _: asyncio.Future[Answer]
) -> None:
    """End a call for which nobody waits any more."""
    if all(pending.answer.cancelled() for pending in batch):
        call.cancel()


def _give(future: asyncio.Future[Answer], answer: Answer | Exception) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _is_refusal(error: Exception) -> bool:
    if not isinstance(error, ProviderFailure):
        return False
    return error.billed is False and error.blame is Blame.CALLER


def _inputs(body: Body) -> list[Any]:
    """The inputs of a request: texts, or lists of token ids."""
    given: str | list[Any] = body["input"]
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def _parameters(body: Body) -> bytes:
    return to_json(sorted((name, body[name]) for name in body if name != "input"))


def _batches(waiting: Sequence[PendingRequest]) -> Iterator[list[PendingRequest]]:
    """Groups that a provider takes in one call, by the number and the bounds of their inputs."""
    batch: list[PendingRequest] = []
    for pending in waiting:
        if batch and not _fits([*batch, pending]):
            yield batch
            batch = []
        batch.append(pending)
    if batch:
        yield batch


def _fits(batch: Sequence[PendingRequest]) -> bool:
    """Whether a provider takes these at once, and at no higher tier of prices than alone."""
    model = batch[0].request.model
    most = model.max_request_tokens or model.max_input_tokens
    tokens = sum(pending.max_usage.input_tokens for pending in batch)
    inputs = sum(len(pending.inputs) for pending in batch)
    if inputs > MAX_INPUTS or (most is not None and tokens > most):
        return False
    joined, alone = Usage(tokens), (pricing.max_cost(model.price, each.max_usage) for each in batch)
    return not model.tiers or pricing.max_cost(model.price, joined) <= sum(alone)


def _joined(batch: Sequence[PendingRequest]) -> ProviderRequest:
    """One job for all of `batch`, which may take as long as the most patient of them."""
    inputs = [each for pending in batch for each in pending.inputs]
    first = batch[0].request
    deadline = max((pending.request.deadline for pending in batch), key=lambda each: each.remaining)
    joined = ProviderRequest(first.model, {**first.body, "input": inputs}, deadline)
    for pending in batch:
        pending.request.exchange = joined.exchange
    return joined


def _answers(
    request: ProviderRequest, reply: Reply, batch: Sequence[PendingRequest]
) -> list[Answer | Exception]:
    """Each request's part of a reply; if vectors are missing, the error with what each used."""
    alone = len(batch) == 1
    max_usages = [pending.max_usage for pending in batch]
    whole: Divided = [reply.usage], [None]
    usages, costs = whole if alone else divide(request.model.price, reply.usage, max_usages)
    try:
        vectors = iter(_vectors(reply.output, sum(len(pending.inputs) for pending in batch)))
    except BadAnswer as error:
        return [BadAnswer(str(error), usage=usage) for usage in usages]
    if alone:
        return [(reply, None)]
    return [
        (Reply(_part(reply.output, [next(vectors) for _ in pending.inputs], usage), usage), cost)
        for pending, usage, cost in zip(batch, usages, costs, strict=True)
    ]


def _failures(
    request: ProviderRequest, error: Exception, batch: Sequence[PendingRequest]
) -> Sequence[Exception]:
    """The error of each request. Each pays its part of what the provider counted all the same."""
    if not isinstance(error, ProviderFailure) or error.usage is None or len(batch) == 1:
        return [error] * len(batch)
    parts, _ = divide(request.model.price, error.usage, [pending.max_usage for pending in batch])
    failures = [copy.copy(error) for _ in batch]
    for failure, part in zip(failures, parts, strict=True):
        failure.usage = part
    return failures


def _vectors(output: Any, count: int) -> list[Body]:
    """The vectors in the order of their inputs. Raises `BadAnswer`."""
    try:
        found = {item.get("index", place): item for place, item in enumerate(output["data"])}
        vectors = [found[index] for index in range(count)]
        if all(vector["embedding"] for vector in vectors):
            return vectors
    except FORM_ERRORS as error:
        raise BadAnswer("the answer has no vector for each input") from error
    raise BadAnswer("the answer has an empty vector")


def _part(output: Body, vectors: list[Body], usage: Usage | None) -> Body:
    data = [{**vector, "index": index} for index, vector in enumerate(vectors)]
    part = {**output, "data": data}
    if usage is not None and "usage" in output:
        total = usage.input_tokens + usage.output_tokens
        part["usage"] = {"prompt_tokens": usage.input_tokens, "total_tokens": total}
    return part
