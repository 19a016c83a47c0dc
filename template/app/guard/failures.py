"""What a client is told when a provider failed."""

from app.errors import (
    DeadlineExceeded,
    InvalidRequest,
    ProviderCoolingDown,
    ProviderError,
    ServiceError,
)
from app.policy import Model
from app.providers.base import ProviderFailure

# A provider that says when it wants to be asked again, or that it is asked too often.
BUSY = {429, 503}
DEFAULT_PAUSE_SECONDS = 5.0
# A request that the provider finds wrong is the client's to mend.
REFUSED = {400, 413, 422}


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
    return ProviderError(f"{model.provider} failed: {failure}. Try again.")


def too_late(seconds: float) -> DeadlineExceeded:
    return DeadlineExceeded(f"No complete answer within {seconds:g} s; ask for less, or try again.")
