"""Joins embedding requests of a user that arrive together into one call to the provider.

A request without others in flight is sent at once. While a call of the same user, model and
parameters runs, requests wait a few milliseconds, or until it ends, and are joined. Each gets its
own vectors and pays its share; the shares add up exactly to the usage and cost of the call.
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

JoinedReply = tuple[Reply, int | None]


class PendingRequest(NamedTuple):
    """A request that waits: its inputs, its maximum usage, and the future of its answer."""

    request: ProviderRequest
    inputs: list[Any]
    max_usage: Usage
    answer: asyncio.Future[JoinedReply]


class BatchKey(NamedTuple):
    """What joined requests share: the user, the model and all parameters but the input."""

    user_id: str
    model: str
    are_texts: bool
    parameters: bytes


@dataclass(slots=True)
class _Queue:
    """The requests of a lane that wait, and how many of its calls are in flight."""

    waiting: list[PendingRequest] = field(default_factory=list)
    in_flight: int = 0
    timer: asyncio.Handle | None = None


class Coalescer:
    """Sends embedding requests to providers, joined where they arrive together."""

    def __init__(self) -> None:
        self._queues: dict[BatchKey, _Queue] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def answer(
        self, user_id: str, provider: Provider, request: ProviderRequest, max_usage: Usage
    ) -> JoinedReply:
        """The answer to `request`, and its share of the cost in nano-dollars if it was joined.

        Raises what the provider raises. A joined call runs until no request waits for it.
        """
        pending = PendingRequest(
            request, _inputs(request.body), max_usage, asyncio.get_running_loop().create_future()
        )
        body, are_texts = request.body, isinstance(pending.inputs[0], str)
        parameters = to_json(sorted((name, body[name]) for name in body if name != "input"))
        key = BatchKey(user_id, request.model.id, are_texts, parameters)
        queue = self._queues.setdefault(key, _Queue())
        queue.waiting.append(pending)
        if queue.timer is None:
            loop, flush = asyncio.get_running_loop(), partial(self._flush, key, provider)
            # Requests of one iteration of the event loop are joined.
            queue.timer = (
                loop.call_later(GATHER_SECONDS, flush) if queue.in_flight else loop.call_soon(flush)
            )
        return await pending.answer

    def _flush(self, key: BatchKey, provider: Provider) -> None:
        """Send the waiting requests."""
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
        """Start a call for `batch`; it is cancelled when all its requests are."""
        self._queues[key].in_flight += 1
        call = asyncio.create_task(self._call(key, provider, batch))
        self._calls.add(call)
        call.add_done_callback(partial(self._ended, key, provider))
        for pending in batch:
            pending.answer.add_done_callback(partial(_leave, call, batch))

    async def _call(self, key: BatchKey, provider: Provider, batch: list[PendingRequest]) -> None:
        """Answer each request of `batch` by one call."""
        request = batch[0].request if len(batch) == 1 else _joined(batch)
        answers: Sequence[JoinedReply | Exception]
        try:
            reply = await provider.answer(request)
            answers = _answers(request, reply, batch)
        except Exception as error:
            refused = isinstance(error, ProviderFailure) and (
                error.billed is False and error.blame is Blame.CALLER
            )
            if len(batch) > 1 and refused:
                # One request is at fault and nothing was billed: send each alone.
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
    call: asyncio.Task[None], batch: list[PendingRequest], _: asyncio.Future[JoinedReply]
) -> None:
    """Cancel a call once all its requests are cancelled."""
    if all(pending.answer.cancelled() for pending in batch):
        call.cancel()


def _give(future: asyncio.Future[JoinedReply], answer: JoinedReply | Exception) -> None:
    if future.cancelled():
        return
    if isinstance(answer, Exception):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _inputs(body: Body) -> list[Any]:
    """The inputs of a request: texts, or lists of token ids."""
    given: str | list[Any] = body["input"]
    return [given] if isinstance(given, str) or isinstance(given[0], int) else given


def _batches(waiting: Sequence[PendingRequest]) -> Iterator[list[PendingRequest]]:
    """Batches that fit into one call, by the number and the maximum tokens of their inputs."""
    batch: list[PendingRequest] = []
    for pending in waiting:
        if batch and not _fits([*batch, pending]):
            yield batch
            batch = []
        batch.append(pending)
    if batch:
        yield batch


def _fits(batch: Sequence[PendingRequest]) -> bool:
    """Whether a call takes these requests, and no price tier makes them dearer than alone."""
    model = batch[0].request.model
    most = model.max_request_tokens or model.max_input_tokens
    tokens = sum(pending.max_usage.input_tokens for pending in batch)
    inputs = sum(len(pending.inputs) for pending in batch)
    if inputs > MAX_INPUTS or (most is not None and tokens > most):
        return False
    joined, alone = Usage(tokens), (pricing.max_cost(model.price, each.max_usage) for each in batch)
    return not model.tiers or pricing.max_cost(model.price, joined) <= sum(alone)


def _joined(batch: Sequence[PendingRequest]) -> ProviderRequest:
    """One request for all of `batch`, with their latest deadline."""
    inputs = [each for pending in batch for each in pending.inputs]
    first = batch[0].request
    deadline = max((pending.request.deadline for pending in batch), key=lambda each: each.remaining)
    joined = ProviderRequest(first.model, {**first.body, "input": inputs}, deadline)
    for pending in batch:
        pending.request.exchange = joined.exchange
    return joined


def _answers(
    request: ProviderRequest, reply: Reply, batch: Sequence[PendingRequest]
) -> list[JoinedReply | Exception]:
    """The part of each request in a reply; if vectors are missing, an error with its usage."""
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
    """The error of each request, with its share of the usage that the provider reported."""
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
