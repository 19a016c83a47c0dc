"""The path that every generation passes, to be read from top to bottom.

authenticate (`auth`) → model, parameters and bound → limits → open the attempt, durably →
call the provider under one deadline → settle and record, durably → answer.

Each step either passes or raises an error of `app.errors`; a refusal leaves nothing behind.
"""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress

from app.auth.principal import Scope
from app.errors import ProviderError, ServiceError
from app.guard import pricing
from app.guard.failures import explain, too_late
from app.guard.generation import Call, Ending, Generation
from app.guard.ledger import Ledger
from app.guard.limits import Limits
from app.ids import new_id
from app.policy import Policy
from app.providers.base import (
    Body,
    Chunks,
    Deadline,
    Job,
    Outcome,
    Provider,
    ProviderFailure,
    Reply,
    Usage,
    check_parameters,
)
from app.providers.completion import Transcript, outcome_of
from app.telemetry import metrics
from app.telemetry.context import note

# A slot's lease outlives the deadline by this: closing takes a moment.
SLOT_MARGIN_SECONDS = 10


class Guard:
    """Takes a call to a provider and back, so that nothing is unlimited, unpaid or unrecorded."""

    def __init__(
        self,
        policy: Policy,
        limits: Limits,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        *,
        log_content: bool,
    ) -> None:
        self._policy = policy
        self._limits = limits
        self._ledger = ledger
        self._providers = providers
        self._log_content = log_content

    async def generate(self, call: Call) -> tuple[Generation, Reply]:
        """The whole answer to `call`."""
        generation = await self.begin(call)
        return generation, await self.finish(generation)

    async def begin(self, call: Call) -> Generation:
        """Everything before the provider: the call is checked, admitted and in the ledger."""
        call.principal.require(Scope.GENERATE)
        model = self._policy.model(call.model, call.kind)
        provider = self._providers[model.provider]
        if missing := provider.missing():
            raise ProviderError(f"{missing} is not set, so this model cannot answer.")
        check_parameters(provider, model, call.body)
        bound = pricing.bound(model, call.body)
        generation_id = new_id("pred")
        lease_seconds = call.seconds + SLOT_MARGIN_SECONDS
        grant = await self._limits.admit(call.principal, bound, generation_id, lease_seconds)
        job = Job(model, call.body, Deadline(call.seconds))
        generation = Generation(call, model, provider, job, bound, grant, generation_id)
        try:
            await self._ledger.open(generation)
        except BaseException:
            await self._limits.withdraw(grant)
            raise
        note(prediction_id=generation.id, model=model.id)
        return generation

    async def finish(self, generation: Generation) -> Reply:
        """The provider's whole answer, settled and recorded."""
        try:
            async with generation.job.deadline.scope():
                reply = await generation.provider.answer(generation.job)
            outcome = _outcome(generation, reply)
        except (Exception, asyncio.CancelledError) as error:
            if problem := await self._failed(generation, error):
                raise problem from error
            raise
        await self._settle(generation, Ending("succeeded", outcome, reply.usage, reply.output))
        return reply

    async def stream(self, call: Call) -> tuple[Generation, list[Body], Chunks]:
        """A chat as it is written: the first chunks, and the rest, which the caller must close.

        What fails before the first chunk is a plain error.
        """
        generation = await self.begin(call)
        chunks = self._chunks(generation)
        try:
            async with generation.job.deadline.scope():
                first: list[Body] = await anext(chunks, [])
        except TimeoutError as error:
            raise too_late(call.seconds) from error
        return generation, first, chunks

    async def drain(self) -> None:
        """Wait for every settlement that is under way."""
        await self._ledger.drain()

    async def _chunks(self, generation: Generation) -> Chunks:
        """The provider's chunks; settles when they end, fail, or nobody takes them any more."""
        transcript = Transcript()
        try:
            async with aclosing(generation.provider.stream(generation.job)) as source:
                async for chunks in source:
                    for chunk in chunks:
                        transcript.add(chunk)
                    yield chunks
            reply = Reply(transcript.output, transcript.usage)
            outcome = _outcome(generation, reply)
        except (Exception, asyncio.CancelledError, GeneratorExit) as error:
            if problem := await self._failed(generation, error, transcript):
                raise problem from error
            raise
        await self._settle(generation, Ending("succeeded", outcome, reply.usage, reply.output))

    async def _failed(
        self, generation: Generation, error: BaseException, transcript: Transcript | None = None
    ) -> ServiceError | None:
        """Settle what failed, and return what a client is told, if anyone still listens."""
        ending = _ending(generation, error)
        if transcript and transcript.choices:
            ending.output, ending.usage = transcript.output, transcript.usage
        if ending.outcome in {Outcome.TIMEOUT, Outcome.CANCELLED}:
            # The bound is paid already if this fails too.
            with suppress(ProviderFailure, TimeoutError):
                await generation.provider.cancel(generation.job)
        await self._settle(generation, ending)
        return ending.error if isinstance(error, Exception) else None

    async def _settle(self, generation: Generation, ending: Ending) -> None:
        """Make the ending durable; the ledger goes on when the caller is cancelled meanwhile."""
        self._tell(generation, ending)
        used = generation.used_tokens(ending)
        # Beside the ledger's write, so that it takes no time of its own.
        given_back = asyncio.create_task(self._limits.settle(generation.grant, used))
        await self._ledger.close(generation, ending)
        await given_back

    def _tell(self, generation: Generation, ending: Ending) -> None:
        model, usage = generation.model.id, ending.usage or Usage()
        _, cost = generation.settlement(ending)
        metrics.generations.labels(model, ending.outcome.value).inc()
        metrics.generation_seconds.labels(model).observe(generation.latency_ms / 1000)
        metrics.cost.labels(model).inc(cost)
        metrics.tokens.labels(model, "input").inc(usage.input_tokens)
        metrics.tokens.labels(model, "output").inc(usage.output_tokens)
        note(
            outcome=ending.outcome.value,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_nano_usd=cost,
            latency_ms=generation.latency_ms,
            **({"output": ending.output} if self._log_content else {}),
        )


def _outcome(generation: Generation, reply: Reply) -> Outcome:
    if generation.model.kind == "chat":
        return outcome_of(reply.output, generation.call.body)
    return Outcome.OK if reply.output else Outcome.EMPTY


def _ending(generation: Generation, error: BaseException) -> Ending:
    """What a failure means for the record, the bill and the client."""
    failed = Ending("failed", Outcome.PROVIDER_ERROR)
    if isinstance(error, ProviderFailure):
        failed.usage, failed.billed = error.usage, error.billed is not False
        failed.error = explain(error, generation.model)
    elif isinstance(error, ServiceError):
        failed.error = error
    elif isinstance(error, TimeoutError) or generation.job.deadline.passed:
        failed.outcome, failed.error = Outcome.TIMEOUT, too_late(generation.call.seconds)
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Ending("cancelled", Outcome.CANCELLED)
    return failed
