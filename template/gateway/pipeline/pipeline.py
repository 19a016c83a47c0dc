"""The steps of every generation. Read it from top to bottom.

model, parameters, maximum usage → limits → circuit breaker → reserve the maximum cost in the
ledger, durably → call the provider under one deadline → settle and record, durably → answer. A
failed attempt is settled, too, then retried or replaced by a fallback. `app` has authenticated the
caller before.

Each step passes or raises an error of `gateway.errors`; a refused request uses no limit or budget.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NoReturn, TypeVar

from gateway.accounts.principals import Scope
from gateway.errors import BudgetExceeded, RateLimited
from gateway.ids import new_id
from gateway.ledger.budget import caps_of, require_room
from gateway.pipeline.attempts import Attempts
from gateway.pipeline.coalescing import Coalescer
from gateway.pipeline.error_mapping import result_of, too_late
from gateway.pipeline.generation import AttemptResult, Generation, GenerationRequest
from gateway.pipeline.in_flight import InFlight
from gateway.policy import Policy
from gateway.providers.base import Body, Chunks, Deadline, Outcome, Reply
from gateway.rate_limits.limits import Limits
from gateway.telemetry import metrics
from gateway.telemetry.context import bind

# The lease of a slot ends this long after the deadline: settling takes a moment.
SLOT_MARGIN_SECONDS = 10

Given = TypeVar("Given")


class Pipeline:
    """Runs generations: limited, paid and recorded. Raises the errors of `gateway.errors`."""

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        attempts: Attempts,
        in_flight: InFlight,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._attempts = attempts
        self._in_flight = in_flight
        self._coalescer = Coalescer()

    async def generate(self, call: GenerationRequest) -> tuple[Generation, Reply]:
        """The complete answer to `call`."""
        generation = await self.begin(call)
        return generation, await self.finish(generation)

    async def begin(self, call: GenerationRequest) -> Generation:
        """Check and admit `call`, and reserve its cost: everything before the provider."""
        call.principal.require(Scope.GENERATE)
        deadline, generation_id = Deadline(call.seconds), new_id("pred")
        model = self._policy.model(call.model, call.kind)
        candidates = self._attempts.candidates(model, call)
        max_usage = candidates[0].max_usage
        lease_seconds = call.seconds + SLOT_MARGIN_SECONDS
        lease = await self._limits.acquire(call.principal, max_usage, generation_id, lease_seconds)
        try:
            caps = caps_of(self._policy, call.principal)
            require_room(caps, candidates[0].max_cost)
            generation = Generation(call, caps, lease, deadline, generation_id)
            await self._attempts.begin(generation, candidates)
        except (Exception, asyncio.CancelledError) as error:
            await self._limits.refund(lease)
            if isinstance(error, BudgetExceeded):
                metrics.refusals.labels("budget").inc()
            if isinstance(error, TimeoutError):
                raise too_late(deadline) from error
            raise
        self._in_flight.add(generation)
        bind(prediction_id=generation.id, model=generation.model.id)
        return generation

    async def finish(self, generation: Generation) -> Reply:
        """The provider's complete answer, settled and recorded."""
        result = await self._first(generation, self._answer)
        await self._in_flight.settle(generation, result, None)
        return Reply(result.output, result.usage)

    async def stream(self, call: GenerationRequest) -> tuple[Generation, list[Body], Chunks]:
        """A streamed chat: the first chunks, and the rest, which the caller must close.

        Failures before the first chunk are raised here, others by the rest.
        """
        generation = await self.begin(call)
        chunks = self._chunks(generation)
        first: list[Body] = await anext(chunks, [])
        return generation, first, chunks

    async def _answer(self, generation: Generation) -> AttemptResult:
        attempt, share = generation.current, None
        if attempt.model.kind == "embedding":
            user_id, max_usage = generation.call.principal.user_id, attempt.candidate.max_usage
            reply, share = await self._coalescer.answer(
                user_id, attempt.provider, attempt.request, max_usage
            )
        else:
            reply = await attempt.provider.answer(attempt.request)
        return _succeeded(generation, reply, share)

    async def _chunks(self, generation: Generation) -> Chunks:
        """The provider's chunks. Settles when they end or fail, or the caller closes them."""
        source, chunks = await self._first(generation, _start)
        transcript = generation.call.format.transcript()
        try:
            async with aclosing(source):
                if chunks:
                    await generation.current.request.note_answer()
                while chunks:
                    for chunk in chunks:
                        transcript.add(chunk)
                    yield chunks
                    chunks = await anext(source, [])
            answer = _succeeded(generation, Reply(transcript.output, transcript.usage))
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:
            result = result_of(generation, error)
            result.usage = transcript.last_usage or result.usage
            result.billed = True  # The provider has begun to answer.
            if transcript.begun:
                result.output = transcript.output
            await self._in_flight.settle(generation, result, error)
            _raise_to_client(generation, error, result)
        await self._in_flight.settle(generation, answer, None)

    async def _first(
        self, generation: Generation, work: Callable[[Generation], Awaitable[Given]]
    ) -> Given:
        """The result of `work` for the first attempt that succeeds."""
        while True:
            try:
                async with generation.current.request.deadline.scope():
                    return await work(generation)
            except (Exception, asyncio.CancelledError) as error:
                await self._failed(generation, error)

    async def _failed(self, generation: Generation, error: BaseException) -> None:
        """Settle an attempt, then start the next one, or raise the client's error."""
        result = result_of(generation, error)
        retry = self._attempts.next_attempt(generation, error)
        if retry is None:
            await self._in_flight.settle(generation, result, error)
            _raise_to_client(generation, error, result)
        try:
            await self._in_flight.settle(generation, result, error, last=False)
            async with generation.deadline.scope():
                await asyncio.sleep(retry.pause)
                await self._attempts.open(generation, retry.candidates)
        except (Exception, asyncio.CancelledError) as later:
            # If the fallback is rate-limited, the original error is reported.
            reported = error if isinstance(later, RateLimited) else later
            result = result_of(generation, reported)
            await self._in_flight.give_up(generation, result)
            _raise_to_client(generation, reported, result)


async def _start(generation: Generation) -> tuple[Chunks, list[Body]]:
    """Start a stream, and wait for its first chunks."""
    attempt = generation.current
    source = attempt.provider.stream(attempt.request)
    try:
        return source, await anext(source, [])
    except BaseException:
        await source.aclose()
        raise


def _succeeded(generation: Generation, reply: Reply, cost: int | None = None) -> AttemptResult:
    """The result of a reply; `cost` is its share of a joined call's, in nano-dollars."""
    call = generation.call
    if call.kind == "chat":
        outcome = call.format.outcome(reply.output, call.body)
    else:
        outcome = Outcome.OK if reply.output else Outcome.EMPTY
    output = reply.output
    if call.kind != "task" and "model" in output:
        output = {**output, "model": generation.model.id}  # Its public name.
    return AttemptResult("succeeded", outcome, reply.usage, output, cost=cost)


def _raise_to_client(
    generation: Generation, error: BaseException, result: AttemptResult
) -> NoReturn:
    """Raise the client's error; or `error` itself if the client has left."""
    if not isinstance(error, Exception) or result.error is None:
        raise error
    # The error names the record, which may have a cost.
    result.error.headers = {**generation.headers, **result.error.headers}
    if result.error is error:
        raise error
    raise result.error from error
