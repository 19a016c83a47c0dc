"""The interface of a provider, and what all adapters share.

An adapter is thin: it sends a request that was checked already, and translates the answer. It
neither retries nor keeps time; the gateway does.
"""

import asyncio
import math
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from gateway.errors import InvalidRequest, ServiceError
from gateway.policy import Kind, Model
from gateway.providers.parameters import Table, parameters_sent

Body = dict[str, Any]
Chunks = AsyncGenerator[list[Body], None]
"""The chunks of a chat in OpenAI's format; each list holds the chunks that arrived together."""
# The parameters that limit the output of a chat: OpenAI's old name and its new one.
MAXIMA = ("max_tokens", "max_completion_tokens")
TIMER_SECONDS = 0.005
# The provider is overloaded, or limits the rate; it may send `Retry-After`.
BUSY = frozenset({429, 503})
# Client errors that a retry may solve. A retry of any other one fails in the same way.
PASSING = frozenset({408, 409, 425, 429})
# No call takes longer (a hundred days); a larger number from a provider is wrong.
MAX_MICROSECONDS = 10**13


class Outcome(StrEnum):
    """The result of a generation. A provider's HTTP 200 does not imply success."""

    OK = "ok"
    EMPTY = "empty"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    FILTERED = "filtered"
    INVALID_SCHEMA = "invalid_schema"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    PROVIDER_ERROR = "provider_error"


class Blame(StrEnum):
    """The party that can fix a failure."""

    CALLER = "caller"  # The request is wrong.
    OPERATOR = "operator"  # The model's entry or the provider's address is wrong.
    ACCOUNT = "account"  # The operator's account there has no valid credential, credit or quota.
    PROVIDER = "provider"  # The provider is busy, broken or unreachable.


def blame_of(status: int | None) -> Blame:
    """The party to blame for an HTTP status that an adapter's table does not list.

    None stands for no answer.
    """
    if status in {400, 413, 422}:
        return Blame.CALLER
    if status in {401, 402, 403}:
        return Blame.ACCOUNT
    if status is None or status >= 500 or status in {408, 409, 425, 429}:
        return Blame.PROVIDER
    return Blame.OPERATOR


class Usage(NamedTuple):
    """The usage of a call, or its upper bound.

    `input_tokens` includes the tokens that were read from the provider's cache and those written
    into it. `microseconds` are of compute. `outputs` counts what is billed by the piece, such as
    images.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    microseconds: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    outputs: int = 0


def compute(seconds: Any) -> Usage | None:
    """The usage of `seconds` of compute, rounded up to microseconds.

    None for what is not a number of seconds, and for a number that is out of range.
    """
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        microseconds = math.ceil(seconds * 1e6)
    except (OverflowError, ValueError):
        return None
    return Usage(microseconds=microseconds) if 0 <= microseconds <= MAX_MICROSECONDS else None


class Reply(NamedTuple):
    """A provider's answer.

    `output` is OpenAI's response object for chats and embeddings; for a task, any JSON value.
    `usage` is None when the provider did not report it.
    """

    output: Any
    usage: Usage | None


class Deadline:
    """A deadline for all the work of one request. It can be cancelled early.

    Uses the monotonic clock. `cancelled_by` is the reason of an early end.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.cancelled_by: ServiceError | None = None
        self._at = time.monotonic() + seconds
        self._scopes: set[asyncio.Timeout] = set()
        self._parts: list[Deadline] = []

    @property
    def remaining(self) -> float:
        """Seconds left; 0 once the deadline has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether the deadline has passed, within the precision of an event loop's timer."""
        return self.remaining < TIMER_SECONDS

    def within(self, seconds: float) -> "Deadline":
        """A deadline that passes after `seconds` at the latest.

        Cancelling this deadline cancels that one too.
        """
        if seconds >= self.remaining:
            return self
        part = Deadline(seconds)
        self._parts.append(part)
        return part

    @asynccontextmanager
    async def scope(self) -> AsyncIterator[None]:
        """A context that raises `TimeoutError` at the deadline, also when it is cancelled."""
        async with asyncio.timeout(self.remaining) as timeout:
            self._scopes.add(timeout)
            try:
                yield
            finally:
                self._scopes.discard(timeout)

    def cancel(self, reason: ServiceError) -> None:
        """End the deadline now. The first `reason` is kept."""
        self.cancelled_by = self.cancelled_by or reason
        self._at = 0.0
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(0.0)
        for part in self._parts:
            part.cancel(reason)


class Quota(NamedTuple):
    """What is left of a provider's rate limits, by its headers.

    `reset_seconds` is the time until a used-up limit resets; 0 if no limit is used up.
    """

    remaining_requests: int | None
    remaining_tokens: int | None
    reset_seconds: float


class Exchange:
    """A call as the provider sees it. Requests that are coalesced share one."""

    # Whether the circuit breaker has counted the call.
    counted = False
    # Whether the first byte may have been sent.
    sent = False
    # Whether the first byte of an answer has arrived.
    answered = False


@dataclass(slots=True)
class ProviderRequest:
    """One attempt at a provider: its input, and what the adapter learns on the way.

    `deadline` is that of this attempt. `remote_id` is the provider's id of work that runs on
    without a connection; `keep` makes it durable, so that the work is found again after a crash.
    `quota` is None where the provider sends no limits; it was read at `quota_at`, in seconds of
    the monotonic clock. `output_limits` are the parameter names that were tried for the largest
    output: the server accepted the last one and refused those before. `on_answer` is called once,
    with the first byte of an answer.
    """

    model: Model
    body: Body
    deadline: Deadline
    remote_id: str | None = None
    quota: Quota | None = None
    quota_at: float = field(default_factory=time.monotonic)
    keep: Callable[[], Awaitable[None]] | None = None
    exchange: Exchange = field(default_factory=Exchange)
    output_limits: tuple[str, ...] = ()
    on_answer: Callable[[], Awaitable[None]] | None = None

    async def note_answer(self) -> None:
        """Record that the provider has begun to answer. Idempotent."""
        if not self.exchange.answered:
            self.exchange.answered = True
            if self.on_answer is not None:
                await self.on_answer()

    @property
    def sent(self) -> bool:
        """Whether the first byte may have been sent."""
        return self.exchange.sent

    @sent.setter
    def sent(self, value: bool) -> None:
        self.exchange.sent = value


class ProviderFailure(Exception):
    """A call failed. The message is for the operator.

    `status` is the provider's HTTP status; None if there was no answer, or only part of one.
    `retry_after` is in seconds. `billed` is False when the provider's terms say that it does not
    bill this failure, None when that is unknown. `param` is the parameter that the provider
    refused, `code` its error code, `reason` its message, which may hold content. `usage` is what
    the provider counted. `should_retry` is False when the provider asks not to retry.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        billed: bool | None = None,
        param: str | None = None,
        usage: Usage | None = None,
        blame: Blame | None = None,
        code: str | None = None,
        reason: str | None = None,
        should_retry: bool = True,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after
        self.billed = billed
        self.param = param
        self.usage = usage
        self.blame = blame or blame_of(status)
        self.code = code
        self.reason = reason
        self.should_retry = should_retry


class BadAnswer(ProviderFailure):
    """The provider's answer is unusable, and a retry would not change that."""


def is_retryable(failure: ProviderFailure) -> bool:
    """Whether a retry may succeed: the provider was busy or unreachable."""
    if failure.blame is not Blame.PROVIDER or not failure.should_retry:
        return False
    if failure.status is None:
        return not isinstance(failure, BadAnswer)
    return failure.status >= 500 or failure.status in PASSING


class Provider(ABC):
    """A provider of models.

    `responses` is the adapter for `/v1/responses` of the same server; None if it offers chats only.
    `parameters` has the table of verdicts of each kind of model; None passes every parameter.
    `billed_by_time` are the kinds for which the provider reports seconds of compute; for all other
    kinds it reports tokens. For the kinds in `counted` it also reports outputs, which some models
    are billed by: all models of `official_owners` that are named without a version. The provider
    cannot limit compute to less than `least_seconds`.
    """

    name: str
    parameters: Mapping[Kind, Table | None]
    responses: "Provider | None" = None
    billed_by_time: frozenset[Kind] = frozenset()
    counted: frozenset[Kind] = frozenset()
    official_owners: frozenset[str] = frozenset()
    least_seconds = 0

    def missing_credential(self) -> str | None:
        """The environment variable of a required credential that is not set, or None."""
        return None

    @abstractmethod
    async def answer(self, request: ProviderRequest) -> Reply:
        """The complete answer. Raises `ProviderFailure`."""

    @abstractmethod
    def stream(self, request: ProviderRequest) -> Chunks:
        """The chunks of a chat. Raises `ProviderFailure`, also after some chunks."""

    async def cancel(self, request: ProviderRequest) -> Usage | None:
        """Cancel work that runs on at the provider, where that stops its bill.

        Returns the usage if the provider reports it. Raises `ProviderFailure`. Elsewhere it does
        nothing: the gateway closes the connection, which ends a stream and its bill.
        """
        return None

    async def fetch_result(self, request: ProviderRequest) -> Reply | None:
        """The answer of work that has a `remote_id`; None while it runs, and if none can run on.

        Raises `ProviderFailure`.
        """
        return None


def request_body(provider: Provider, model: Model, body: Body) -> Body:
    """The parameters of `body` that the adapter sends.

    Raises `InvalidRequest` for a kind of model that the provider does not offer, and
    `UnsupportedParameter` for the first parameter that it refuses.
    """
    if model.kind not in provider.parameters:
        raise InvalidRequest(f"{provider.name} offers no {model.kind} models.", param="model")
    return parameters_sent(provider.parameters[model.kind], body)


def misbilled(provider: Provider, model: Model) -> str | None:
    """An error message for a model with a price per second that its provider bills by the output.

    None if the model is declared well.
    """
    owner, has_owner, name = model.name.partition("/")
    is_official = bool(has_owner) and ":" not in name and owner in provider.official_owners
    if model.usd_per_second is None or not is_official:
        return None
    return (
        f"models.toml, {model.id}: {provider.name} bills {model.name} by the output, not by the "
        "second; give usd_per_output and max_outputs"
    )
