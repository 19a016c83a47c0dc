"""The generations that run in this process, and their ends."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from gateway.errors import erased
from gateway.ledger.batch import stopped
from gateway.ledger.entries import correction_entry
from gateway.ledger.ledger import Ledger
from gateway.pipeline.attempts import Attempts
from gateway.pipeline.failure_report import FailureReport
from gateway.pipeline.generation import AttemptResult, Generation
from gateway.providers.base import Usage
from gateway.rate_limits.limits import Limits
from gateway.telemetry import metrics
from gateway.telemetry.context import bind


class InFlight:
    """Settles the ledger, updates the circuit breaker, refunds unused tokens.

    All of it continues if the caller is cancelled: a client may leave at any moment.
    """

    def __init__(
        self,
        limits: Limits,
        ledger: Ledger,
        attempts: Attempts,
        report: FailureReport,
        *,
        log_content: bool,
    ) -> None:
        self._limits = limits
        self._ledger = ledger
        self._attempts = attempts
        self._report = report
        self._log_content = log_content
        self._generations: dict[str, Generation] = {}
        self._endings: set[asyncio.Task[None]] = set()

    def add(self, generation: Generation) -> None:
        """Add a generation that has begun."""
        self._generations[generation.id] = generation

    @property
    def ids(self) -> list[str]:
        """The ids of the generations that run in this process."""
        return list(self._generations)

    def erase(self, generation_id: str) -> None:
        """Cancel a generation whose record was erased, if it runs in this process."""
        if generation := self._generations.get(generation_id):
            generation.deadline.cancel(erased())

    def cancel(self, target: str, kind: str) -> None:
        """Cancel the generations of a stopped service, provider or model."""
        for generation in list(self._generations.values()):
            model = generation.model
            if target in {"service", f"provider:{model.provider}", f"model:{model.id}"}:
                generation.deadline.cancel(stopped(target, kind))

    async def settle(
        self,
        generation: Generation,
        result: AttemptResult,
        error: BaseException | None,
        *,
        last: bool = True,
    ) -> None:
        """Settle the current attempt, and with the `last` one the generation. Durable on return."""
        attempt = generation.current
        generation.count(result)
        self._report.add(generation, result, error)
        closed = self._ledger.settle(generation, attempt, result, last=last)
        if last:
            self._end(generation, result)
        await self._shielded(self._finish_attempt(generation, result, error, closed, last=last))

    async def give_up(self, generation: Generation, result: AttemptResult) -> None:
        """End a generation between two attempts. Durable on return."""
        closed = self._ledger.settle(generation, None, result)
        self._end(generation, result)
        await self._shielded(self._release(generation, closed))

    async def drain(self) -> None:
        """Wait until all ends are written."""
        if self._endings:
            await asyncio.wait(self._endings)
        await self._ledger.drain()

    async def _finish_attempt(
        self,
        generation: Generation,
        result: AttemptResult,
        error: BaseException | None,
        closed: Awaitable[None],
        *,
        last: bool,
    ) -> None:
        """Update the circuit breaker while the ledger writes, so that the answer does not wait."""
        attempt = generation.current
        try:
            used = await self._attempts.finish(attempt, result, error)
            if used is not None and attempt.settlement(result)[0] == "uncertain":
                closed = self._ledger.submit(correction_entry(generation, attempt, result, used))
        finally:
            await (self._release(generation, closed) if last else closed)

    async def _release(self, generation: Generation, closed: Awaitable[None]) -> None:
        """Give back the slot and the unused tokens."""
        try:
            await self._limits.release(generation.lease, generation.used_tokens)
        finally:
            await closed

    def _shielded(self, work: Coroutine[Any, Any, None]) -> Awaitable[None]:
        """Do `work` in a task that continues if the caller is cancelled."""
        task = asyncio.create_task(work)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)
        return asyncio.shield(task)

    def _end(self, generation: Generation, result: AttemptResult) -> None:
        self._generations.pop(generation.id, None)
        call, model, usage = generation.call, generation.model.id, result.usage or Usage()
        metrics.generations.labels(model, result.outcome.value).inc()
        metrics.generation_seconds.labels(model).observe(generation.latency_ms / 1000)
        bind(
            served_model=model,
            outcome=result.outcome.value,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cost_nano_usd=generation.cost_nano_usd,
            latency_ms=generation.latency_ms,
            **({"output": result.output} if self._log_content and call.keep_output else {}),
        )
