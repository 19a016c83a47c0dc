"""Maps failures to the result of the attempt and to the error of the client."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from gateway.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    InvalidRequest,
    ProviderCoolingDown,
    ProviderError,
    ProviderQuotaExceeded,
    ServiceError,
)
from gateway.pipeline.generation import AttemptResult, Generation
from gateway.policy import Model
from gateway.providers.base import BUSY, Blame, Deadline, Outcome, ProviderFailure
from gateway.providers.error_answers import CONTEXT_LENGTH

DEFAULT_PAUSE_SECONDS = 5.0
# One limit under its different names: an adapter sends the name that its server takes.
OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")


def result_of(generation: Generation, error: BaseException) -> AttemptResult:
    """The result of the current attempt, from what it raised."""
    failed = AttemptResult("failed", Outcome.PROVIDER_ERROR)
    whole, own = generation.deadline, generation.current.request.deadline
    deadline = whole if whole.passed else own
    if whole.cancelled_by:
        return AttemptResult("cancelled", Outcome.CANCELLED, error=whole.cancelled_by)
    if isinstance(error, ProviderFailure):
        failed.usage, failed.billed = error.usage, error.billed is not False
        failed.error = explain(error, generation.model, generation.call.body)
    elif isinstance(error, ServiceError):
        failed.error = error
    elif isinstance(error, TimeoutError) or deadline.passed:
        failed.outcome, failed.error = Outcome.TIMEOUT, too_late(deadline)
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        return AttemptResult("cancelled", Outcome.CANCELLED)
    return failed


def explain(
    failure: ProviderFailure, model: Model, body: Mapping[str, Any] | None = None
) -> ServiceError:
    """The client's error for `failure`. The provider's text may hold content, so it is not part
    of it: only the operator sees it.
    """
    provider = model.provider
    if failure.blame is Blame.CALLER:
        return _refused(failure, provider, body or {})
    if failure.blame is Blame.ACCOUNT:
        return ProviderQuotaExceeded(
            f"The operator's account at {provider} has no credit or quota left, or its credential "
            "is not valid. Trying again does not help; tell the operator."
        )
    if failure.blame is Blame.OPERATOR:
        return ProviderError(_misconfigured(failure.status, model))
    if failure.status in BUSY:
        pause = failure.retry_after or DEFAULT_PAUSE_SECONDS
        return ProviderCoolingDown(
            f"{provider} is busy; try again later.",
            retry_after=min(pause, model.max_cooldown_seconds),
        )
    return ProviderError(f"{provider} failed: {failure}. Try again.")


def _misconfigured(status: int | None, model: Model) -> str:
    """The message for a failure that the operator must fix."""
    if status is not None and 300 <= status < 400:
        return f"{model.provider} moved to another address; tell the operator."
    return (
        f"{model.provider} does not serve {model.id} as models.toml declares it; tell the operator."
    )


def _refused(failure: ProviderFailure, provider: str, body: Mapping[str, Any]) -> ServiceError:
    param = parameter_of(failure.param, body)
    if failure.code == CONTEXT_LENGTH:
        # Clients recognise the error by this text: LangChain by the code in parentheses, LiteLLM
        # and others by the beginning.
        message = "This model's maximum context length is exceeded (context_length_exceeded)"
        return ContextLengthExceeded(f"{message}; send less.", param=param)
    at = f" at {param!r}" if param else ""
    return InvalidRequest(f"{provider} refused the request{at}; check its parameters.", param=param)


def parameter_of(param: str | None, body: Mapping[str, Any]) -> str | None:
    """The provider's `param` by its name in the client's body; None if it is not there."""
    name = re.split(r"[.\[]", param, maxsplit=1)[0] if param else ""
    if name in OUTPUT_LIMITS:
        return next((limit for limit in OUTPUT_LIMITS if limit in body), None)
    return param if name in body else None


def too_late(deadline: Deadline) -> ServiceError:
    """The error of a deadline: why it was cancelled, or that it has passed."""
    return deadline.cancelled_by or DeadlineExceeded(
        f"No complete answer within {deadline.seconds:g} s; ask for less, or try again."
    )
