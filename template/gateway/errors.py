"""Errors that reach a client: each class carries its HTTP status and code.

All are sent in OpenAI's format, `{"error": {"message", "type", "code", "param"}}`, so that OpenAI's
clients raise their own typed exceptions. `http/exception_handlers.py` sends them.
"""

import logging
import math
from collections.abc import Mapping
from typing import ClassVar

logger = logging.getLogger("app")
# For the operator; a client is asked to try again.
NO_DATABASE = (
    "The database does not answer, or lacks its tables. Is DATABASE_URL right? "
    "`python -m app doctor` says what is wrong; `python -m app migrate` creates the tables."
)


# The most characters of an input that an error repeats.
MAX_REPEATED = 100
ErrorBody = dict[str, dict[str, str | None]]


class StartError(Exception):
    """The service cannot start. The message says what is wrong and what to do."""


class ServiceError(Exception):
    """An error with a message for the client that says what to do.

    `param` names the field with the error; `retry_after` is in seconds. `begun` is true if the
    request may still be carried out, and paid. With `is_final`, clients are asked not to retry.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    begun = False
    is_final = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        if self.is_final:
            self.headers["x-should-retry"] = "false"
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def body(self) -> ErrorBody:
        """The error in OpenAI's format."""
        return error_body(self.status, self.code, self.message, self.param)


class InvalidCredentials(ServiceError):
    """The credential is missing, wrong, expired or revoked."""

    status, code = 401, "invalid_credentials"


class BudgetExceeded(ServiceError):
    """A budget is used up: a retry fails until its period ends."""

    status, code, is_final = 402, "budget_exceeded", True


class Forbidden(ServiceError):
    """The credential's scope or the user's role does not permit the request."""

    status, code = 403, "forbidden"


class NotFound(ServiceError):
    """There is no such object, or it belongs to another user."""

    status, code = 404, "not_found"


class ModelNotFound(ServiceError):
    """`models.toml` has no such model of the route's kind."""

    status, code = 404, "model_not_found"


class Conflict(ServiceError):
    """The state of an object does not permit the change."""

    status, code = 409, "conflict"


class IdempotencyInFlight(ServiceError):
    """The first request with this `Idempotency-Key` is still running."""

    status, code = 409, "idempotency_in_flight"


class OutcomeUnknown(ServiceError):
    """The outcome of the first request with this `Idempotency-Key` is unknown."""

    status, code, is_final = 409, "outcome_unknown", True


class InvalidRequest(ServiceError):
    """A value of the request is invalid."""

    status, code = 422, "invalid_request"


class UnsupportedParameter(ServiceError):
    """A parameter is unknown, or refused for this model."""

    status, code = 422, "unsupported_parameter"


class RequestTooLarge(ServiceError):
    """The request exceeds a limit of the model."""

    status, code = 422, "request_too_large"


class ContextLengthExceeded(ServiceError):
    """The provider refused a conversation that is too long."""

    status, code = 422, "context_length_exceeded"


class IdempotencyMismatch(ServiceError):
    """An earlier request with this `Idempotency-Key` had another content."""

    status, code = 422, "idempotency_mismatch"


class RateLimited(ServiceError):
    """A rate or concurrency limit refuses the request."""

    status, code = 429, "rate_limit_exceeded"


class ProviderError(ServiceError):
    """The provider failed, or its answer is unusable."""

    status, code = 502, "provider_error"


class ProviderQuotaExceeded(ServiceError):
    """The operator's account has no credit, quota or valid credential: a retry does not help."""

    status, code, is_final = 503, "provider_quota_exceeded", True


class ProviderCoolingDown(ServiceError):
    """The provider's circuit breaker is open."""

    status, code = 503, "provider_cooling_down"


class GenerationStopped(ServiceError):
    """An operator stopped the target, or the process is stopping."""

    status, code = 503, "generation_stopped"


def erased() -> Conflict:
    """The error for a client whose prediction was erased meanwhile. A retry would be paid again."""
    message = "This prediction was erased, and so was cancelled."
    return Conflict(message, headers={"x-should-retry": "false"})


def cut_short() -> GenerationStopped:
    """The error for a request that has not finished when the process has to stop."""
    return GenerationStopped(
        "The service is stopping, and the request has not finished in time. Try again.",
        retry_after=1,
    )


class LimiterUnavailable(ServiceError):
    """The store of the rate limits does not answer."""

    status, code = 503, "limiter_unavailable"


class DatabaseUnavailable(ServiceError):
    """The database is unreachable, slow or not migrated."""

    status, code = 503, "database_unavailable"


class DeadlineExceeded(ServiceError):
    """The generation did not finish in time."""

    status, code = 504, "deadline_exceeded"


TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def log_cause(error: ServiceError) -> None:
    """Log the cause of an error with a status of 500 or above."""
    if error.status >= 500:
        logger.warning("%s: %s", error.code, cause_of(error))


def cause_of(error: BaseException) -> str:
    """The cause of a service error, for the operator."""
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause else "-"


def shortened(given: str) -> str:
    """The first `MAX_REPEATED` characters of a client's text."""
    return given if len(given) <= MAX_REPEATED else f"{given[: MAX_REPEATED - 1]}…"


def error_body(status: int, code: str, message: str, param: str | None) -> ErrorBody:
    """An error in OpenAI's format."""
    param = param and shortened(param)
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}
