"""What a failure means: for the record, for the bill, and for the client."""

import asyncio

from app.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ProviderCoolingDown,
    ProviderError,
    ServiceError,
)
from app.guard.generation import Ending, Generation
from app.policy import Model
from app.providers.base import BUSY, REFUSED, Deadline, Outcome, ProviderFailure

DEFAULT_PAUSE_SECONDS = 5.0


def ending_of(generation: Generation, error: BaseException) -> Ending:
    """How the attempt at hand ended, by what it raised."""
    failed = Ending("failed", Outcome.PROVIDER_ERROR)
    whole, own = generation.deadline, generation.current.job.deadline
    deadline = whole if whole.passed else own
    if whole.cut_by:
        return Ending("cancelled", Outcome.CANCELLED, error=whole.cut_by)
    if isinstance(error, ProviderFailure):
        failed.usage, failed.billed = error.usage, error.billed is not False
        failed.error = explain(error, generation.model)
    elif isinstance(error, ServiceError):
        failed.error = error
    elif isinstance(error, TimeoutError) or deadline.passed:
        failed.outcome, failed.error = Outcome.TIMEOUT, too_late(deadline)
    elif isinstance(error, asyncio.CancelledError | GeneratorExit):
        return Ending("cancelled", Outcome.CANCELLED)
    return failed


def explain(failure: ProviderFailure, model: Model) -> ServiceError:
    """The error for the client. The provider's own words may hold content; they stay here."""
    if failure.status in BUSY:
        return ProviderCoolingDown(
            f"{model.provider} is busy; try again later.",
            retry_after=failure.retry_after or DEFAULT_PAUSE_SECONDS,
        )
    if failure.status in REFUSED:
        at = f" at {failure.param!r}" if failure.param else ""
        return InvalidRequest(
            f"{model.provider} refused the request{at}; check its parameters.", param=failure.param
        )
    if failure.status in {401, 403}:
        return ProviderError(f"{model.provider} refused the operator's credential.")
    if failure.status == 404:
        return ProviderError(f"{model.provider} does not know {model.id}; tell the operator.")
    if failure.status is not None and failure.status < 400:
        return ProviderError(f"{model.provider} moved to another address; tell the operator.")
    return ProviderError(f"{model.provider} failed: {failure}. Try again.")


def too_late(deadline: Deadline) -> ServiceError:
    """Why there is no more time."""
    return deadline.cut_by or DeadlineExceeded(
        f"No complete answer within {deadline.seconds:g} s; ask for less, or try again."
    )
