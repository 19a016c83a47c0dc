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

    job: ProviderRequest
    inputs: list[Any]
    bound: Usage
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
    running: int = 0
    timer: asyncio.Handle | None = None


class Coalescer:
    """Asks providers for embeddings, for several requests at once where they arrive together."""

    def __init__(self) -> None:
        self._queues: dict[BatchKey, _Queue] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def answer(
        self, user_id: str, provider: Provider, job: ProviderRequest, bound: Usage
    ) -> Answer:
        """The answer to `job` alone, and its share of the cost in nano-dollars if it was joined.

        Raises what the provider raises. The call goes on while one of its requests is awaited.
        """
        member = PendingRequest(
            job, _inputs(job.body), bound, asyncio.get_running_loop().create_future()
        )
        lane = BatchKey(
            user_id, job.model.id, isinstance(member.inputs[0], str), _parameters(job.body)
        )
        queue = self._queues.setdefault(lane, _Queue())
        queue.waiting.append(member)
        if queue.timer is None:
            loop, flush = asyncio.get_running_loop(), partial(self._flush, lane, provider)
            # Requests that are handled in the same turn of the event loop go together.
            later = (
                loop.call_later(GATHER_SECONDS, flush) if queue.running else loop.call_soon(flush)
            )
            queue.timer = later
        return await member.answer

    def _flush(self, lane: BatchKey, provider: Provider) -> None:
        """Send what waits."""
        queue = self._queues[lane]
        if queue.timer is not None:
            queue.timer.cancel()
        waiting = [member for member in queue.waiting if not member.answer.done()]
        queue.waiting, queue.timer = [], None
        for batch in _batches(waiting):
            self._begin(lane, provider, batch)
        if not queue.running:
            del self._queues[lane]

    def _begin(self, lane: BatchKey, provider: Provider, batch: list[PendingRequest]) -> None:
        """Make a call for `batch`, which ends when nobody waits for it any more."""
        self._queues[lane].running += 1
        call = asyncio.create_task(self._call(lane, provider, batch))
        self._calls.add(call)
        call.add_done_callback(partial(self._ended, lane, provider))
        for member in batch:
            member.answer.add_done_callback(partial(_leave, call, batch))

    async def _call(self, lane: BatchKey, provider: Provider, batch: list[PendingRequest]) -> None:
        """Answer each of `batch`, by one call."""
        job = batch[0].job if len(batch) == 1 else _joined(batch)
        answers: Sequence[Answer | Exception]
        try:
            reply = await provider.answer(job)
            answers = _answers(job, reply, batch)
        except Exception as error:
            if len(batch) > 1 and _is_refusal(error):
                # One is at fault, and nothing was billed: the others must not suffer for it.
                for member in batch:
                    if not member.answer.done():
                        member.job.exchange = Exchange()
                        self._begin(lane, provider, [member])
                return
            answers = _failures(job, error, batch)
        for member, answer in zip(batch, answers, strict=True):
            member.job.quota, member.job.quota_at = job.quota, job.quota_at
            _give(member.answer, answer)

    def _ended(self, lane: BatchKey, provider: Provider, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        queue = self._queues[lane]
        queue.running -= 1
        if not queue.running:
            self._flush(lane, provider)


def _leave(
    call: asyncio.Task[None], batch: list[PendingRequest], _: asyncio.Future[Answer]
) -> None:
    """End a call for which nobody waits any more."""
    if all(member.answer.cancelled() for member in batch):
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
    for member in waiting:
        if batch and not _fits([*batch, member]):
            yield batch
            batch = []
        batch.append(member)
    if batch:
        yield batch


def _fits(batch: Sequence[PendingRequest]) -> bool:
    """Whether a provider takes these at once, and at no higher tier of prices than alone."""
    model = batch[0].job.model
    most = model.max_request_tokens or model.max_input_tokens
    tokens = sum(member.bound.input_tokens for member in batch)
    inputs = sum(len(member.inputs) for member in batch)
    if inputs > MAX_INPUTS or (most is not None and tokens > most):
        return False
    joined, alone = Usage(tokens), (pricing.max_cost(model.price, each.bound) for each in batch)
    return not model.tiers or pricing.max_cost(model.price, joined) <= sum(alone)


def _joined(batch: Sequence[PendingRequest]) -> ProviderRequest:
    """One job for all of `batch`, which may take as long as the most patient of them."""
    inputs = [each for member in batch for each in member.inputs]
    first = batch[0].job
    deadline = max((member.job.deadline for member in batch), key=lambda each: each.remaining)
    joined = ProviderRequest(first.model, {**first.body, "input": inputs}, deadline)
    for member in batch:
        member.job.exchange = joined.exchange
    return joined


def _answers(
    job: ProviderRequest, reply: Reply, batch: Sequence[PendingRequest]
) -> list[Answer | Exception]:
    """Each request's part of a reply; if vectors are missing, the error with what each used."""
    alone = len(batch) == 1
    bounds = [member.bound for member in batch]
    whole: Divided = [reply.usage], [None]
    usages, costs = whole if alone else divide(job.model.price, reply.usage, bounds)
    try:
        vectors = iter(_vectors(reply.output, sum(len(member.inputs) for member in batch)))
    except BadAnswer as error:
        return [BadAnswer(str(error), usage=usage) for usage in usages]
    if alone:
        return [(reply, None)]
    return [
        (Reply(_part(reply.output, [next(vectors) for _ in member.inputs], usage), usage), cost)
        for member, usage, cost in zip(batch, usages, costs, strict=True)
    ]


def _failures(
    job: ProviderRequest, error: Exception, batch: Sequence[PendingRequest]
) -> Sequence[Exception]:
    """The error of each request. Each pays its part of what the provider counted all the same."""
    if not isinstance(error, ProviderFailure) or error.usage is None or len(batch) == 1:
        return [error] * len(batch)
    parts, _ = divide(job.model.price, error.usage, [member.bound for member in batch])
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
