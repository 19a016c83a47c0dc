"""The limits of users, teams, API keys and the service, and their errors and headers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

from gateway.accounts.principals import KeyLimits, Principal
from gateway.counts import counted
from gateway.errors import Forbidden, LimiterUnavailable, RateLimited, RequestTooLarge, log_cause
from gateway.plans import DeclaredLimits, Plan, TeamPlan
from gateway.policy import Policy
from gateway.providers.base import Usage
from gateway.rate_limits.base import (
    AcquireRequest,
    Admission,
    Bucket,
    BucketStatus,
    Limiter,
    Slot,
    SlotStatus,
)
from gateway.telemetry import metrics

Rates = DeclaredLimits | KeyLimits
AnyPlan = TypeVar("AnyPlan", Plan, TeamPlan)
# Attempts use less than this beyond their lease. A larger number is an error of the provider, which
# must not block the caller and the service for days.
MAX_OVERDRAWN_MINUTES = 60


@dataclass(slots=True)
class Lease:
    """The units and slots of a generation. `tokens` is the most that it can use."""

    request: AcquireRequest
    admission: Admission
    tokens: int


class Limits:
    """Takes what a request needs from every limit that applies, or nothing."""

    def __init__(self, policy: Policy, limiter: Limiter) -> None:
        self._policy = policy
        self._limiter = limiter

    async def acquire(
        self, principal: Principal, max_usage: Usage, holder: str, seconds: float
    ) -> Lease:
        """Take one request, the tokens of `max_usage`, and a slot for `seconds` at most.

        Raises `RateLimited`; `RequestTooLarge` if `max_usage` is more than a limit allows;
        `Forbidden` if the plan of the user or the team is unknown; `LimiterUnavailable`.
        """
        tokens = max_usage.input_tokens + max_usage.output_tokens
        scopes = list(self._scopes(principal))
        buckets = tuple(bucket for scope in scopes for bucket in _buckets(*scope, tokens))
        slots = tuple(
            Slot(account, rates.concurrent_generations, holder, seconds)
            for account, rates in scopes
            if rates.concurrent_generations is not None
        )
        _require_room(buckets)
        request = AcquireRequest(buckets, slots)
        admission = await self._limiter.acquire(request)
        if not admission.admitted:
            raise refusal(admission)
        return Lease(request, admission, tokens)

    async def peek(self, principal: Principal) -> None:
        """Raise `RateLimited` if a limit has no request or no token left. Takes nothing.

        It asks for more than full buckets: the limiter refuses and reports their levels.
        """
        buckets = [each for scope in self._scopes(principal) for each in _buckets(*scope, 1)]
        never = tuple(bucket._replace(take=bucket.capacity + 1) for bucket in buckets)
        statuses = (await self._limiter.acquire(AcquireRequest(never))).buckets
        levels = [
            BucketStatus(bucket, level)
            for bucket, (_, level) in zip(buckets, statuses, strict=True)
        ]
        admission = Admission(admitted=False, buckets=tuple(levels))
        if admission.longest_wait.wait_seconds:
            raise refusal(admission)

    async def extend(self, lease: Lease, tokens: int) -> None:
        """Take the tokens that `lease` lacks for `tokens`, for a fallback that can use more.

        Raises `RateLimited` or `LimiterUnavailable`, and takes nothing then.
        """
        missing, request = tokens - lease.tokens, lease.request
        if missing <= 0:
            return
        taken = [bucket for bucket in request.buckets if bucket.kind == "tokens"]
        more = tuple(bucket._replace(take=missing) for bucket in taken)
        admission = await self._limiter.acquire(AcquireRequest(more))
        if not admission.admitted:
            raise refusal(admission)
        rest = tuple(bucket for bucket in request.buckets if bucket.kind != "tokens")
        whole = tuple(bucket._replace(take=tokens) for bucket in taken)
        lease.request, lease.tokens = request._replace(buckets=rest + whole), tokens

    async def release(self, lease: Lease, used_tokens: int | None) -> None:
        """Free the slot, and give back the unused tokens; none if `used_tokens` is None.

        Does not raise: if the limiter is unavailable, the slot ends with its lease.
        """
        unused = 0 if used_tokens is None else lease.tokens - used_tokens
        buckets = (b for b in lease.request.buckets if b.kind == "tokens") if unused else ()
        given_back = tuple(
            bucket._replace(take=max(unused, -MAX_OVERDRAWN_MINUTES * bucket.capacity))
            for bucket in buckets
        )
        await self._give_back(AcquireRequest(given_back, lease.request.slots))

    async def refund(self, lease: Lease) -> None:
        """Give back the whole lease, for a generation that was refused. Does not raise."""
        await self._give_back(lease.request)

    async def _give_back(self, request: AcquireRequest) -> None:
        if not (request.buckets or request.slots):
            return
        try:
            await self._limiter.release(request)
        except LimiterUnavailable as error:
            log_cause(error)

    def _scopes(self, principal: Principal) -> Iterator[tuple[str, Rates]]:
        plan = _known(self._policy.plans, principal.plan)
        if principal.key_id is not None:
            yield f"key:{principal.key_id}", principal.limits
        yield f"user:{principal.user_id}", plan
        if principal.team is not None:
            team_plan = _known(self._policy.team_plans, principal.team.plan)
            yield f"team:{principal.team.team_id}", team_plan
        yield "service", self._policy.service


def _known(plans: Mapping[str, AnyPlan], name: str) -> AnyPlan:
    """The plan `name`. Raises `Forbidden` if plans.toml lacks it."""
    if name not in plans:
        raise Forbidden(f"The plan {name!r} is not in plans.toml; ask the operator.")
    return plans[name]


def _buckets(account: str, rates: Rates, tokens: int) -> Iterator[Bucket]:
    if rates.requests_per_minute is not None:
        yield Bucket("requests", f"{account}:requests", rates.requests_per_minute)
    if rates.tokens_per_minute is not None:
        yield Bucket("tokens", f"{account}:tokens", rates.tokens_per_minute, tokens)


def _require_room(buckets: tuple[Bucket, ...]) -> None:
    """Raise `RequestTooLarge` for more units than a full bucket has: waiting does not help."""
    for bucket in buckets:
        if bucket.take > bucket.capacity:
            most, limit = (counted(units, "token") for units in (bucket.take, bucket.capacity))
            raise RequestTooLarge(
                f"This request can use up to {most}, and the limit is {limit} a minute. "
                "Send less, or ask for fewer output tokens."
            )


def refusal(admission: Admission) -> RateLimited:
    """The error for a refused request; counts it in the metrics."""
    state = admission.longest_wait
    wait = math.ceil(state.wait_seconds)
    if isinstance(state, SlotStatus):
        kind = "concurrency"
        limit = f"{counted(state.slot.capacity, 'generation')} at once"
        reached = f"The limit of {limit} is reached; one ends within {wait} s."
    else:
        kind = state.bucket.kind
        limit = f"{counted(state.bucket.capacity, kind.removesuffix('s'))} a minute"
        reached = f"The limit of {limit} is reached; wait {wait} s."
    metrics.refusals.labels(kind).inc()
    return RateLimited(
        reached, param=kind, retry_after=state.wait_seconds, headers=headers(admission)
    )


def headers(admission: Admission) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers, of the tightest limit of each kind."""
    return {**_headers("requests", admission), **_headers("tokens", admission)}


def _headers(kind: Literal["requests", "tokens"], admission: Admission) -> dict[str, str]:
    levels = [level for level in admission.buckets if level.bucket.kind == kind]
    if not levels:
        return {}
    tightest: BucketStatus = min(levels, key=lambda level: level.remaining)
    return {
        f"x-ratelimit-limit-{kind}": str(tightest.bucket.capacity),
        f"x-ratelimit-remaining-{kind}": str(tightest.remaining),
        f"x-ratelimit-reset-{kind}": duration(tightest.reset_seconds),
    }


def duration(seconds: float) -> str:
    """Whole seconds as OpenAI writes them: `1s`, `6m0s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
