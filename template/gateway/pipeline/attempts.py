"""The attempts of a generation: the candidate models, their order, retries and fallbacks."""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.circuit_breaker.stalls import Stalls
from gateway.errors import (
    GenerationStopped,
    ProviderCoolingDown,
    ProviderError,
    RateLimited,
    ServiceError,
)
from gateway.ledger.ledger import Ledger
from gateway.pipeline.generation import (
    Attempt,
    AttemptResult,
    Candidate,
    Generation,
    GenerationRequest,
)
from gateway.pipeline.retry import Retries
from gateway.policy import Model, Policy
from gateway.providers.base import (
    Blame,
    Outcome,
    Provider,
    ProviderFailure,
    ProviderRequest,
    Usage,
    misbilled,
    request_body,
)
from gateway.rate_limits.limits import Limits
from gateway.telemetry.logging import log

# A time-out counts against the provider only if the attempt had this share of the deadline: it may
# have waited for its budget, or followed other attempts.
FAIR_SHARE = 0.5


class NextAttempt(NamedTuple):
    """The candidates for another attempt, in order, and the pause before it, in seconds."""

    pause: float
    candidates: Sequence[Candidate]


class Attempts:
    """Starts attempts, and reports their results to the circuit breaker."""

    def __init__(
        self,
        policy: Policy,
        circuit_breaker: CircuitBreaker,
        limits: Limits,
        ledger: Ledger,
        providers: Mapping[str, Provider],
        stalls: Stalls,
        *,
        production: bool,
    ) -> None:
        self._policy = policy
        self._breaker = circuit_breaker
        self._limits = limits
        self._ledger = ledger
        self._providers = providers
        self._stalls = stalls
        self._production = production
        self._retries = Retries()

    def candidates(self, model: Model, call: GenerationRequest) -> list[Candidate]:
        """`model`, then its fallbacks that can serve `call` at the same maximum cost or less.

        Raises `ProviderError`, `InvalidRequest` or `RequestTooLarge` if `model` cannot serve it.
        """
        first = self._candidate(model, call)
        return [first, *self._fallbacks(first, call)]

    async def begin(self, generation: Generation, candidates: Sequence[Candidate]) -> None:
        """Start the first attempt. Raises what `open` raises."""
        self._retries.first()
        await self.open(generation, candidates)

    async def open(self, generation: Generation, candidates: Sequence[Candidate]) -> None:
        """Start an attempt with the first of `candidates` that may be called.

        If there is none, raises the error of the first: `ProviderCoolingDown`,
        `GenerationStopped` or `RateLimited`. Raises `BudgetExceeded`, `DatabaseUnavailable`,
        `LimiterUnavailable`, and `TimeoutError` at the deadline.
        """
        refused: ServiceError | None = None
        for place, candidate in enumerate(candidates):
            try:
                generation.attempt = await self._open(generation, candidate)
            except (ProviderCoolingDown, GenerationStopped, RateLimited) as error:
                refused = refused or error
            else:
                generation.rest = candidates[place + 1 :]
                return
        assert refused is not None, "there is a candidate"
        raise refused

    async def finish(
        self, attempt: Attempt, result: AttemptResult, error: BaseException | None
    ) -> Usage | None:
        """Cancel work that may still run, and report the result to the circuit breaker.

        Returns the usage of cancelled work if the provider reports it, else None.
        """
        begun = error is not None and result.usage is None and attempt.request.remote_id is not None
        runs_on = begun or result.outcome in {Outcome.TIMEOUT, Outcome.CANCELLED}
        used = await self._cancel(attempt) if runs_on else None
        request = attempt.request
        await self._breaker.record_quota(
            attempt.model, request.quota, time.monotonic() - request.quota_at
        )
        await self._report(attempt, result, error)
        return used

    def next_attempt(self, generation: Generation, error: BaseException) -> NextAttempt | None:
        """The next attempt after `error`: a retry or a fallback; None if neither can help."""
        attempt = generation.current
        remote_id, deadline = attempt.request.remote_id, generation.deadline
        if not isinstance(error, ProviderFailure) or deadline.cancelled_by:
            return None
        pause = self._retries.pause(attempt.model, attempt.tries, error, deadline, remote_id)
        if pause is not None:
            return NextAttempt(pause, [attempt.candidate, *generation.rest])
        helps = remote_id is None and error.blame is not Blame.CALLER
        return NextAttempt(0.0, generation.rest) if helps and generation.rest else None

    async def _cancel(self, attempt: Attempt) -> Usage | None:
        """Cancel work at the provider. If that fails, the attempt stays at its maximum."""
        try:
            with suppress(ProviderFailure, TimeoutError):
                return await attempt.provider.cancel(attempt.request)
        except Exception as error:
            log(logging.ERROR, "Work could not be cancelled", attempt=attempt.id, error=error)
        return None

    async def _report(
        self, attempt: Attempt, result: AttemptResult, error: BaseException | None
    ) -> None:
        """Report a result to the circuit breaker.

        Failures while this process stood still do not count against the provider.
        """
        permit = replace(attempt.permit, exchange=attempt.request.exchange)
        if error is None:
            if not attempt.permit.exchange.answered:
                await self._breaker.record_success(permit)
        elif isinstance(error, ProviderFailure) and not self._was_stalled(attempt, error):
            await self._breaker.record_failure(permit, error)
        elif result.outcome is Outcome.TIMEOUT and self._is_silence(attempt):
            await self._breaker.record_timeout(permit)
        else:
            await self._breaker.release(permit)

    def _was_stalled(self, attempt: Attempt, failure: ProviderFailure) -> bool:
        return failure.status is None and self._stalls.since(attempt.began)

    def _is_silence(self, attempt: Attempt) -> bool:
        """Whether the provider had its share of the deadline, and sent nothing."""
        request, took = attempt.request, time.monotonic() - attempt.began
        had_time = request.sent and took >= FAIR_SHARE * request.deadline.seconds
        return had_time and not (request.exchange.answered or self._stalls.since(attempt.began))

    async def _open(self, generation: Generation, candidate: Candidate) -> Attempt:
        model, deadline, before = candidate.model, generation.deadline, generation.attempt
        permit = await self._breaker.acquire(model)
        answered = partial(self._breaker.record_success, permit)
        request = ProviderRequest(
            model, candidate.body, deadline, exchange=permit.exchange, on_answer=answered
        )
        attempt = Attempt(candidate, request, permit)
        if before is not None:
            attempt.number = before.number + 1
            attempt.tries = before.tries + 1 if before.model is model else 1
        try:
            await self._limits.extend(generation.lease, candidate.tokens)
            # A probe must not wait for budget: it would keep the circuit from closing.
            await self._ledger.reserve(generation, attempt, waits=permit.probe is None)
            attempt.began = time.monotonic()
        except (Exception, asyncio.CancelledError):
            await self._breaker.release(permit)
            raise
        if model.usd_per_second is not None or model.usd_per_output is not None:
            attempt.request.keep = partial(self._ledger.renew, generation, attempt)
            if model.max_seconds is not None:
                attempt.request.deadline = deadline.within(model.max_seconds)
        return attempt

    def _candidate(self, model: Model, call: GenerationRequest) -> Candidate:
        offered = self._providers[model.provider]
        if missing := offered.missing_credential():
            raise ProviderError(f"{missing} is not set, so this model cannot answer.")
        if misbilled(offered, model):
            raise ProviderError(
                f"models.toml prices this model by the second, and {offered.name} bills it by the "
                "output; tell the operator."
            )
        provider, body = call.format.fit(offered, call.body)
        sent = request_body(provider, model, body)
        return Candidate(model, provider, call.format.max_usage(model, call.body), sent)

    def _fallbacks(self, first: Candidate, call: GenerationRequest) -> Iterator[Candidate]:
        most = first.max_cost
        for name in first.model.fallbacks:
            model = self._policy.models[name]
            if self._production and model.provider == "offline":
                continue
            with suppress(ServiceError):
                candidate = self._candidate(model, call)
                if candidate.max_cost <= most:
                    yield candidate
