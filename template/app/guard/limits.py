"""The limits of a user's plan, and how they are told to a client."""

import math

from app.auth.principal import Principal
from app.errors import Forbidden, RateLimited
from app.policy import Plan, Policy
from app.state.base import Admission, Bucket, Demand, Limiter
from app.telemetry import metrics


class Limits:
    """Takes what a request needs from the user's buckets."""

    def __init__(self, policy: Policy, limiter: Limiter) -> None:
        self._policy = policy
        self._limiter = limiter

    async def admit(self, principal: Principal) -> Admission:
        """Take one request. Raises `RateLimited`, or `Forbidden` for a plan that is not known."""
        plan = self._plan(principal)
        # The braces keep a user's keys together where a limiter spreads keys over nodes.
        key = f"{{{principal.user_id}}}:requests"
        bucket = Bucket("requests", key, plan.requests_per_minute)
        admission = await self._limiter.admit(Demand((bucket,)))
        if not admission.admitted:
            raise refusal(admission)
        return admission

    def _plan(self, principal: Principal) -> Plan:
        plan = self._policy.plans.get(principal.plan)
        if plan is None:
            raise Forbidden(f"The plan {principal.plan!r} is not in plans.toml; ask the operator.")
        return plan


def refusal(admission: Admission) -> RateLimited:
    """The error for a request that was not admitted."""
    limit = admission.longest_wait
    kind = limit.bucket.kind
    metrics.refusals.labels(kind).inc()
    wait = math.ceil(limit.wait_seconds)
    return RateLimited(
        f"The limit of {limit.bucket.capacity} {kind} a minute is reached; wait {wait} s.",
        param=kind,
        retry_after=limit.wait_seconds,
        headers=headers(admission),
    )


def headers(admission: Admission) -> dict[str, str]:
    """OpenAI's `x-ratelimit-*` headers."""
    limit = admission.tightest
    kind = limit.bucket.kind
    return {
        f"x-ratelimit-limit-{kind}": str(limit.bucket.capacity),
        f"x-ratelimit-remaining-{kind}": str(limit.remaining),
        f"x-ratelimit-reset-{kind}": duration(limit.reset_seconds),
    }


def duration(seconds: float) -> str:
    """Whole seconds as OpenAI writes them: `1s`, `6m0s`."""
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
