"""Errors that reach a client: each class carries its HTTP status and code.

All are rendered in OpenAI's shape, `{"error": {"message", "type", "code", "param"}}`, so that
OpenAI's clients raise their own typed exceptions for them. `handlers.py` sends them.
"""

import logging
import math
from collections.abc import Mapping
from typing import Any, ClassVar

logger = logging.getLogger("app")
# For the operator, where a client is told to try again.
NO_DATABASE = (
    "The database does not answer, or lacks its tables. Is DATABASE_URL right? "
    "`python -m app doctor` says what is wrong; `python -m app migrate` makes the tables."
)


# What an error repeats of an input, in characters.
MAX_REPEATED = 100
ErrorBody = dict[str, dict[str, str | None]]


class StartError(Exception):
    """The service cannot start; the message says what is wrong and what to do."""


class ServiceError(Exception):
    """An error with a sentence for the client that says what to do.

    `param` names the offending field, `retry_after` is in seconds. `begun` says that what was asked
    for may be carried out, and paid, all the same.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    begun = False

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
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))

    def body(self) -> ErrorBody:
        """The error in the shape of OpenAI's API."""
        return error_body(self.status, self.code, self.message, self.param)


class InvalidCredentials(ServiceError):
    status, code = 401, "invalid_credentials"


class BudgetExceeded(ServiceError):
    """Trying again is of no use before the period ends."""

    status, code = 402, "budget_exceeded"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, headers={"x-should-retry": "false"}, **details)


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class ModelNotFound(ServiceError):
    status, code = 404, "model_not_found"


class Conflict(ServiceError):
    status, code = 409, "conflict"


class IdempotencyInFlight(ServiceError):
    status, code = 409, "idempotency_in_flight"


class OutcomeUnknown(ServiceError):
    status, code = 409, "outcome_unknown"


class InvalidRequest(ServiceError):
    status, code = 422, "invalid_request"


class UnsupportedParameter(ServiceError):
    status, code = 422, "unsupported_parameter"


class RequestTooLarge(ServiceError):
    status, code = 422, "request_too_large"


class ContextLengthExceeded(ServiceError):
    status, code = 422, "context_length_exceeded"


class IdempotencyMismatch(ServiceError):
    status, code = 422, "idempotency_mismatch"


class RateLimited(ServiceError):
    status, code = 429, "rate_limit_exceeded"


class ProviderError(ServiceError):
    status, code = 502, "provider_error"


class ProviderQuotaExceeded(ServiceError):
    """The operator's account has no credit, quota or valid credential: waiting does not help."""

    status, code = 503, "provider_quota_exceeded"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, headers={"x-should-retry": "false"}, **details)


class ProviderCoolingDown(ServiceError):
    status, code = 503, "provider_cooling_down"


class GenerationStopped(ServiceError):
    status, code = 503, "generation_stopped"


def erased() -> Conflict:
    """What a client is told whose generation was erased; to try again would pay once more."""
    message = "This prediction was erased, and so was cancelled."
    return Conflict(message, headers={"x-should-retry": "false"})


def cut_short() -> GenerationStopped:
    """The process was asked to stop, and the time to finish is over."""
    return GenerationStopped(
        "The service stops, and this took too long to be finished before. Try again.",
        retry_after=1,
    )


class LimiterUnavailable(ServiceError):
    status, code = 503, "limiter_unavailable"


class DatabaseUnavailable(ServiceError):
    status, code = 503, "database_unavailable"


class DeadlineExceeded(ServiceError):
    status, code = 504, "deadline_exceeded"


TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def log_cause(error: ServiceError) -> None:
    """Tell the operator what is behind an error that is not the client's."""
    if error.status >= 500:
        logger.warning("%s: %s", error.code, cause_of(error))


def cause_of(error: BaseException) -> str:
    """What is behind an error of ours, for the operator."""
    cause = error.__cause__
    return f"{type(cause).__name__}: {cause}" if cause else "-"


def shortened(given: str) -> str:
    """The beginning of what a client wrote."""
    return given if len(given) <= MAX_REPEATED else f"{given[: MAX_REPEATED - 1]}…"


def error_body(status: int, code: str, message: str, param: str | None) -> ErrorBody:
    """An error in the shape of OpenAI's API."""
    param = param and shortened(param)
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "code": code, "param": param}}
