"""The path that every generation passes, to be read from top to bottom.

authenticate (`auth`) → model, parameters and bound → limits → circuit → reserve the bound in the
ledger, durably → call the provider under one deadline → settle and record, durably → answer.
What fails is settled as well, and tried again, or with a fallback, where that can help.

Each step either passes or raises an error of `app.errors`; a refusal leaves nothing behind.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import NamedTuple, NoReturn, TypeVar

from app.auth.principal import Scope
from app.errors import BudgetExceeded
from app.guard.attempts import Attempts
from app.guard.batching import Coalescer
from app.guard.budget import caps_of, require_room
from app.guard.decisions import stopped
from app.guard.failures import ending_of, too_late
from app.guard.generation import Call, Ending, Generation
from app.guard.ledger import Ledger
from app.guard.limits import Limits
from app.guard.pricing import cost
from app.ids import new_id
from app.policy import Policy
from app.providers.base import Body, Chunks, Deadline, Outcome, Reply, Usage
from app.providers.completion import Transcript, outcome_of
from app.telemetry import metrics
from app.telemetry.context import note

# A slot's lease outlives the deadline by this: closing takes a moment.
SLOT_MARGIN_SECONDS = 10

Given = TypeVar("Given")


class Answer(NamedTuple):
    """A reply, what came of it, and its share of the cost if it was part of a larger call."""

    reply: Reply
    outcome: Outcome
    cost: int | None = None


class Guard:
    """Takes a call to a provider and back, so that nothing is unlimited, unpaid or unrecorded."""

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        ledger: Ledger,
        attempts: Attempts,
        *,
        log_content: bool,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._ledger = ledger
        self._attempts = attempts
        self._coalescer = Coalescer()
        self._log_content = log_content
        self._running: dict[str, Generation] = {}

    async def generate(self, call: Call) -> tuple[Generation, Reply]:
        """The whole answer to `call`."""
        generation = await self.begin(call)
        return generation, await self.finish(generation)

    async def begin(self, call: Call) -> Generation:
        """Everything before the provider: the call is checked, admitted and in the ledger."""
        call.principal.require(Scope.GENERATE)
        deadline, generation_id = Deadline(call.seconds), new_id("pred")
        model = self._policy.model(call.model, call.kind)
        choices = self._attempts.choices(model, call.body)
        bound = choices[0].bound
        lease_seconds = call.seconds + SLOT_MARGIN_SECONDS
        grant = await self._limits.admit(call.principal, bound, generation_id, lease_seconds)
        try:
            caps = caps_of(self._policy, call.principal)
            require_room(caps, cost(model.price, bound))
            generation = Generation(call, caps, grant, deadline, generation_id)
            await self._attempts.begin(generation, choices)
        except (Exception, asyncio.CancelledError) as error:
            await self._limits.withdraw(grant)
            if isinstance(error, BudgetExceeded):
                metrics.refusals.labels("budget").inc()
            if isinstance(error, TimeoutError):
                raise too_late(deadline) from error
            raise
        self._running[generation.id] = generation
        note(prediction_id=generation.id, model=generation.model.id)
        return generation

    async def finish(self, generation: Generation) -> Reply:
        """The provider's whole answer, settled and recorded."""
        answer = await self._first(generation, self._answer)
        await self._succeeded(generation, answer)
        return answer.reply

    async def stream(self, call: Call) -> tuple[Generation, list[Body], Chunks]:
        """A chat as it is written: the first chunks, and the rest, which the caller must close.

        What fails before the first chunk is a plain error.
        """
        generation = await self.begin(call)
        chunks = self._chunks(generation)
        first: list[Body] = await anext(chunks, [])
        return generation, first, chunks

    def cut(self, target: str, kind: str) -> None:
        """End the generations that run at a stopped service, provider or model."""
        for generation in list(self._running.values()):
            model = generation.model
            if target in {"service", f"provider:{model.provider}", f"model:{model.id}"}:
                generation.deadline.cut(stopped(target, kind))

    async def drain(self) -> None:
        """Wait for every settlement that is under way."""
        await self._ledger.drain()

    async def _answer(self, generation: Generation) -> Answer:
        attempt, share = generation.current, None
        if attempt.model.kind == "embedding":
            user_id, bound = generation.call.principal.user_id, attempt.choice.bound
            reply, share = await self._coalescer.answer(
                user_id, attempt.provider, attempt.job, bound
            )
        else:
            reply = await attempt.provider.answer(attempt.job)
        return Answer(reply, _outcome(generation, reply), share)

    async def _chunks(self, generation: Generation) -> Chunks:
        """The provider's chunks; settles when they end, fail, or nobody takes them any more."""
        source, chunks = await self._first(generation, _start)
        transcript = Transcript()
        try:
            async with aclosing(source):
                while chunks:
                    for chunk in chunks:
                        transcript.add(chunk)
                    yield chunks
                    chunks = await anext(source, [])
            reply = Reply(transcript.output, transcript.usage)
            answer = Answer(reply, _outcome(generation, reply))
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:
            ending = ending_of(generation, error)
            if transcript.choices:
                ending.output, ending.usage = transcript.output, transcript.usage
            await self._attempts.leave(generation.current, ending, error)
            await self._close(generation, ending)
            _tell_client(error, ending)
        await self._succeeded(generation, answer)

    async def _first(
        self, generation: Generation, work: Callable[[Generation], Awaitable[Given]]
    ) -> Given:
        """What `work` gives, by the first attempt that succeeds."""
        while True:
            try:
                async with generation.deadline.scope():
                    return await work(generation)
            except (Exception, asyncio.CancelledError) as error:
                await self._failed(generation, error)

    async def _failed(self, generation: Generation, error: BaseException) -> None:
        """Settle an attempt; then there is another one, or what a client is told is raised."""
        ending = ending_of(generation, error)
        await self._attempts.leave(generation.current, ending, error)
        plan = self._attempts.again(generation, error)
        if plan is None:
            await self._close(generation, ending)
            _tell_client(error, ending)
        try:
            await self._close(generation, ending, last=False)
            async with generation.deadline.scope():
                await asyncio.sleep(plan.pause)
                await self._attempts.open(generation, plan.choices)
        except (Exception, asyncio.CancelledError) as later:
            ending = ending_of(generation, later)
            await self._end(generation, ending, self._ledger.close(generation, None, ending))
            _tell_client(later, ending)

    async def _succeeded(self, generation: Generation, answer: Answer) -> None:
        reply = answer.reply
        ending = Ending("succeeded", answer.outcome, reply.usage, reply.output, cost=answer.cost)
        await self._attempts.leave(generation.current, ending, None)
        await self._close(generation, ending)

    async def _close(self, generation: Generation, ending: Ending, *, last: bool = True) -> None:
        """Make an attempt's ending durable, and the generation's with the `last` one."""
        attempt = generation.current
        generation.count(ending)
        metrics.cost.labels(attempt.model.id).inc(attempt.settlement(ending)[1])
        closed = self._ledger.close(generation, attempt, ending, last=last)
        if last:
            await self._end(generation, ending, closed)
        else:
            await closed

    async def _end(self, generation: Generation, ending: Ending, closed: Awaitable[None]) -> None:
        """Give back what was not used, beside the ledger's write, so that it takes no time."""
        self._running.pop(generation.id, None)
        self._tell(generation, ending)
        try:
            await self._limits.settle(generation.grant, generation.used_tokens)
        finally:
            await closed

    def _tell(self, generation: Generation, ending: Ending) -> None:
        model, usage = generation.model.id, ending.usage or Usage()
        metrics.generations.labels(model, ending.outcome.value).inc()
        metrics.generation_seconds.labels(model).observe(generation.latency_ms / 1000)
        metrics.tokens.labels(model, "input").inc(usage.input_tokens)
        metrics.tokens.labels(model, "output").inc(usage.output_tokens)
        note(
            outcome=ending.outcome.value,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_nano_usd=generation.cost_nano_usd,
            latency_ms=generation.latency_ms,
            **({"output": ending.output} if self._log_content else {}),
        )


async def _start(generation: Generation) -> tuple[Chunks, list[Body]]:
    """A stream whose first chunks are there."""
    attempt = generation.current
    source = attempt.provider.stream(attempt.job)
    try:
        return source, await anext(source, [])
    except BaseException:
        await source.aclose()
        raise


def _outcome(generation: Generation, reply: Reply) -> Outcome:
    if generation.model.kind == "chat":
        return outcome_of(reply.output, generation.call.body)
    return Outcome.OK if reply.output else Outcome.EMPTY


def _tell_client(error: BaseException, ending: Ending) -> NoReturn:
    """Raise what the client is told, if anyone still listens, or what happened itself."""
    if isinstance(error, Exception) and ending.error is not None and ending.error is not error:
        raise ending.error from error
    raise error
