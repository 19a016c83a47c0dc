"""The interface of a provider, and what all adapters share.

An adapter is thin: it sends a request that was checked already, and translates the answer. It
neither retries nor keeps time; the gateway does.
"""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Any, NamedTuple, Protocol

from gateway.errors import InvalidRequest, ServiceError
from gateway.policy import Kind, Model
from gateway.providers.parameters import Table, parameters_sent

Body = dict[str, Any]
Chunks = AsyncGenerator[list[Body], None]
"""The chunks of a chat in OpenAI's format, together as they arrived."""
# The names of the largest output of a chat: the old one and the new one.
MAXIMA = ("max_tokens", "max_completion_tokens")
TIMER_SECONDS = 0.005
# A provider that says when it wants to be asked again, or that it is asked too often.
BUSY = frozenset({429, 503})
# Whatever was wrong may be over soon. Everything else would fail in the same way again.
PASSING = frozenset({408, 409, 425, 429})
# No call takes longer (a hundred days); a provider that says so tells nonsense.
MAX_MICROSECONDS = 10**13


class Outcome(StrEnum):
    """What came of a generation. HTTP 200 is not success."""

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
    """Who can mend a failure."""

    CALLER = "caller"  # The request is wrong.
    OPERATOR = "operator"  # The model's entry or the provider's address is wrong.
    ACCOUNT = "account"  # The operator's account there has no valid credential, credit or quota.
    PROVIDER = "provider"  # It is busy, broken or not to be reached.


def blame_of(status: int | None) -> Blame:
    """Who is to blame for a status that an adapter's table does not list."""
    if status in {400, 413, 422}:
        return Blame.CALLER
    if status in {401, 402, 403}:
        return Blame.ACCOUNT
    if status is None or status >= 500 or status in {408, 409, 425, 429}:
        return Blame.PROVIDER
    return Blame.OPERATOR


class Usage(NamedTuple):
    """What a call used, or the most that it can use.

    Tokens read from the provider's cache and tokens written into it are parts of the input.
    `outputs` counts what is billed by the piece, such as images.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    microseconds: int = 0
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0
    outputs: int = 0


def compute(seconds: Any) -> Usage | None:
    """The usage of `seconds` of compute, rounded up; None when they are no such number."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        microseconds = math.ceil(seconds * 1e6)
    except (OverflowError, ValueError):
        return None
    return Usage(microseconds=microseconds) if 0 <= microseconds <= MAX_MICROSECONDS else None


class Reply(NamedTuple):
    """A provider's answer.

    `output` is OpenAI's response object for chats and embeddings, and whatever a task's model
    answers otherwise. `usage` is None when the provider did not say.
    """

    output: Any
    usage: Usage | None


class Deadline:
    """A moment that bounds all the work for one request; it can be cut short."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        # Why it was cut short.
        self.cancelled_by: ServiceError | None = None
        self._at = time.monotonic() + seconds
        self._scopes: set[asyncio.Timeout] = set()
        self._parts: list[Deadline] = []

    @property
    def remaining(self) -> float:
        """Seconds left, 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether it has passed, as exactly as event loops keep time."""
        return self.remaining < TIMER_SECONDS

    def within(self, seconds: float) -> "Deadline":
        """One that passes after `seconds` at the latest, and is cut with this one."""
        if seconds >= self.remaining:
            return self
        part = Deadline(seconds)
        self._parts.append(part)
        return part

    def scope(self) -> "Scope":
        """A context that raises `TimeoutError` at the deadline."""
        return Scope(self, self._scopes)

    def cancel(self, reason: ServiceError) -> None:
        """Let it pass now."""
        self.cancelled_by = self.cancelled_by or reason
        self._at = 0.0
        for scope in self._scopes:
            if not scope.expired():
                scope.reschedule(0.0)
        for part in self._parts:
            part.cancel(reason)


class Scope:
    """Work that ends with a deadline, also when that is cut."""

    def __init__(self, deadline: Deadline, scopes: set[asyncio.Timeout]) -> None:
        self._timeout = asyncio.timeout(deadline.remaining)
        self._scopes = scopes

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._scopes.add(self._timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scopes.discard(self._timeout)
        await self._timeout.__aexit__(kind, error, traceback)


class Quota(NamedTuple):
    """What a provider said that is left of its limits.

    `reset_seconds` is how long there is nothing left, 0 when there is something.
    """

    remaining_requests: int | None
    remaining_tokens: int | None
    reset_seconds: float


class Exchange:
    """A call as the provider sees it: one for all requests that were joined in it."""

    counted = False
    # Turns true when the first byte may have left.
    sent = False
    # Turns true with the first byte of an answer: silence after it is not the provider's fault.
    answered = False


@dataclass(slots=True)
class ProviderRequest:
    """One attempt at a provider: what is sent, and what is learnt on the way.

    `deadline` is this attempt's: compute ends when no more is paid for. `remote_id` is the
    provider's id of work that runs on without us; `keep` makes it durable, so that the work is
    found again after a crash. `quota` is None where the provider tells nothing of its limits; it
    was told at `quota_at`, in seconds of the monotonic clock. `output_limits` are the names by
    which the server was told the largest output: it took the last one, and refused those before.
    `on_answer` is called once, with the first byte of an answer.
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
        """Note that the provider has begun to answer. Idempotent."""
        if not self.exchange.answered:
            self.exchange.answered = True
            if self.on_answer is not None:
                await self.on_answer()

    @property
    def sent(self) -> bool:
        """Whether the first byte may have left."""
        return self.exchange.sent

    @sent.setter
    def sent(self, value: bool) -> None:
        self.exchange.sent = value


class ProviderFailure(Exception):
    """A call failed. The message is for the operator.

    `status` is the provider's HTTP status; None says that there was no answer, or no whole one.
    `retry_after` is in seconds. `billed` is False when the provider's terms say that it does not
    bill this, None when unknown. `param` is a parameter that the provider refused, `code` its code
    for the error, `reason` its own words, which may hold content; `usage` is what it counted all
    the same. `should_retry` is False when the provider asks not to try again.
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
    """The provider answered, and the answer is of no use. Asking again would not mend it."""


def is_retryable(failure: ProviderFailure) -> bool:
    """Whether the same request may succeed later: the provider was busy, or not to be reached."""
    if failure.blame is not Blame.PROVIDER or not failure.should_retry:
        return False
    if failure.status is None:
        return not isinstance(failure, BadAnswer)
    return failure.status >= 500 or failure.status in PASSING


class Provider(Protocol):
    """A provider of models.

    `parameters` has the table of verdicts of each kind of model; None passes every parameter.
    `billed_by_time` are the kinds for which the provider reports seconds of compute; for all other
    kinds it reports tokens. For the kinds in `counted` it also reports outputs, which some models
    are billed by: all models of `official_owners` that are named without a version. The provider
    cannot limit compute to less than `least_seconds`.
    """

    name: str
    least_seconds: int
    parameters: Mapping[Kind, Table | None]
    billed_by_time: frozenset[Kind]
    counted: frozenset[Kind]
    official_owners: frozenset[str]

    @property
    def responses(self) -> "Provider | None":
        """What speaks `/v1/responses` of the same server; None says that it only speaks chats."""

    def missing_credential(self) -> str | None:
        """The environment variable without which no call can succeed, if it is not set."""

    async def answer(self, request: ProviderRequest) -> Reply:
        """The whole answer. Raises `ProviderFailure`."""

    def stream(self, request: ProviderRequest) -> Chunks:
        """A chat as it is written. Raises `ProviderFailure`, also in the middle."""

    async def cancel(self, request: ProviderRequest) -> Usage | None:
        """End work that runs on at the provider, where that stops its bill.

        What it used, if that is known then. Raises `ProviderFailure`.
        """

    async def fetch_result(self, request: ProviderRequest) -> Reply | None:
        """The answer of work that has a `remote_id`, None while it runs.

        Raises `ProviderFailure`.
        """


def request_body(provider: Provider, model: Model, body: Body) -> Body:
    """What of `body` the adapter sends.

    Raises `InvalidRequest` for a kind of model that it does not offer, `UnsupportedParameter` for
    the first parameter that it refuses.
    """
    if model.kind not in provider.parameters:
        raise InvalidRequest(f"{provider.name} offers no {model.kind} models.", param="model")
    return parameters_sent(provider.parameters[model.kind], body)


def misbilled(provider: Provider, model: Model) -> str | None:
    """What is wrong where a model has a price per second that its provider bills by the output."""
    owner, has_owner, name = model.name.partition("/")
    is_official = bool(has_owner) and ":" not in name and owner in provider.official_owners
    if model.usd_per_second is None or not is_official:
        return None
    return (
        f"models.toml, {model.id}: {provider.name} bills {model.name} by the output, not by the "
        "second; give usd_per_output and max_outputs"
    )
