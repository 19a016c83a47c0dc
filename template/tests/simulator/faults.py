"""What can go wrong at a provider, as values that a test or a drill queues.

A fault names its kind and, where it matters, the provider, method and path it is meant for. It
applies to the next request that fits and whose route can play it, `times` in a row; `times: null`
means every one until the reset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from fnmatch import fnmatchcase
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    # Refusals: another status instead of the work, in the provider's own shape. Nothing is billed.
    "rate_limited",  # 429; `retry_after` says how the client learns to wait `seconds`
    "quota",  # the account has no money left
    "overloaded",  # 503; names `seconds` where the provider estimates them
    "bad_request",  # 400
    "too_long",  # 400, as the conversation does not fit the model's context
    "unauthorized",  # 401
    "error",  # `status`
    "redirect",  # 302 to another host, which records the clients that follow it
    # Delivery: the work is done and billed, but its answer arrives late, broken or not at all.
    "slow",  # after `seconds`
    "timeout",  # never: the connection stays open until the client leaves
    "drop",  # never: the connection closes
    "malformed",  # with status 200 and broken JSON
    "cut",  # half of it, or `after` chunks of a stream; then the connection closes
    # Streams only; both after `after` chunks.
    "stall",  # nothing more comes until the client leaves
    "stream_error",  # an error event ends the stream
    # Content: a complete answer with an unwanted content.
    "empty",  # no text at all
    "refusal",  # the model declines
    "truncated",  # finish_reason "length"
    "filtered",  # finish_reason "content_filter"
    "no_usage",  # the answer has no usage
    "full_usage",  # it cost all it could: a token for each byte, the longest output; or `seconds`
    "excess_usage",  # it cost `excess` more than the request allowed
    "prose",  # text where JSON was asked for
    "extra_fields",  # its messages have every field that some server adds
    "cache_write",  # all of the prompt was written into a cache
    "cache_read",  # all of the prompt was read from the cache
    "used_up",  # its headers say that nothing is left of a limit for `seconds`
    # Predictions: what becomes of remote work.
    "failed",
    "canceled",  # by the provider, while it ran
    "aborted",  # by the provider, before it ran
    "endless",  # it never ends
    "cold",  # not done within the wait that the client asked for
    "early",  # the wait ends with an output, but before the final state
    "foreign_url",  # its URLs point to another host
]

REFUSALS: frozenset[Kind] = frozenset(
    {
        "rate_limited",
        "quota",
        "overloaded",
        "bad_request",
        "too_long",
        "unauthorized",
        "error",
        "redirect",
    }
)
DELIVERY: frozenset[Kind] = frozenset({"slow", "timeout", "drop", "malformed", "cut"})
STREAMING: frozenset[Kind] = frozenset({"stall", "stream_error"})
ANYWHERE = REFUSALS | DELIVERY


class Fault(BaseModel):
    """One fault; its JSON is what `POST /_control/faults` takes in a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    provider: str | None = None
    method: str | None = None
    path: str | None = None
    """A pattern such as `/v1/predictions/*`, for the path behind the provider's base URL."""
    times: int | None = Field(default=1, ge=1)
    status: int = Field(default=500, ge=400, le=599)
    seconds: float = Field(default=30, ge=0)
    retry_after: Literal["seconds", "date", "absent"] = "seconds"
    """The header's form; `absent` leaves what the provider says in its own way."""
    after: int = Field(default=2, ge=0)
    excess: int = Field(default=1000, ge=1)

    def __str__(self) -> str:
        """Name the kind: that is how tests and messages call a fault."""
        return self.kind

    def fits(self, provider: str, method: str, path: str) -> bool:
        """Tell whether it is meant for such a request."""
        return (
            self.provider in (None, provider)
            and self.method in (None, method)
            and (self.path is None or fnmatchcase(path, self.path))
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error answer before a wire format gives it the provider's shape."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    seconds: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """Raised wherever a request is refused; the server answers in the provider's shape."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def refuse(fault: Fault | None, elsewhere: str) -> None:
    """Raise the refusal that the fault asks for, if it asks for one.

    `elsewhere` is the URL that a redirect names.
    """
    if fault is None or fault.kind not in REFUSALS:
        return
    raise RefusedError(_refusal(fault, elsewhere))


def _refusal(fault: Fault, elsewhere: str) -> Refusal:
    match fault.kind:
        case "rate_limited":
            return _rate_limited(fault)
        case "quota":
            return Refusal(402, "You exceeded your current quota.", code="insufficient_quota")
        case "overloaded":
            return Refusal(503, "The model is not ready.", seconds=fault.seconds)
        case "bad_request":
            return Refusal(400, "The request is not valid.")
        case "too_long":
            return too_long(read=8_000, given=9_000)
        case "unauthorized":
            return Refusal(401, "The credentials are not valid.")
        case "redirect":
            return Refusal(302, "Found", headers={"Location": elsewhere})
        case _:
            return Refusal(fault.status, "Something went wrong.")


def too_long(read: int, given: int) -> Refusal:
    """A conversation of `given` tokens does not fit a context of `read`."""
    message = f"This model's maximum context length is {read} tokens. "
    message += f"However, your messages resulted in {given} tokens."
    return Refusal(400, message, "context_length_exceeded", param="messages")


def _rate_limited(fault: Fault) -> Refusal:
    """The limit is reached; how long to wait stands in the header or only in the answer."""
    headers = {}
    if fault.retry_after == "seconds":
        headers["Retry-After"] = f"{fault.seconds:.0f}"
    elif fault.retry_after == "date":
        until = datetime.now(UTC) + timedelta(seconds=fault.seconds)
        headers["Retry-After"] = format_datetime(until, usegmt=True)
    message = "Rate limit reached for requests."
    return Refusal(429, message, "rate_limit_exceeded", seconds=fault.seconds, headers=headers)


@dataclass(slots=True)
class _Pending:
    fault: Fault
    left: int | None


class FaultQueue:
    """Faults in the order in which they were queued; a lookup in an empty queue is free."""

    def __init__(self) -> None:
        self._pending: list[_Pending] = []

    def add(self, fault: Fault) -> None:
        """Queue a fault behind the others."""
        self._pending.append(_Pending(fault, fault.times))

    def clear(self) -> None:
        """Forget all of them."""
        self._pending.clear()

    def take(
        self, provider: str, method: str, path: str, playable: frozenset[Kind]
    ) -> Fault | None:
        """Use up one time of the first fault that fits the request, or answer None."""
        for pending in self._pending:
            if pending.fault.kind in playable and pending.fault.fits(provider, method, path):
                self._use(pending)
                return pending.fault
        return None

    def _use(self, pending: _Pending) -> None:
        if pending.left is None:
            return
        pending.left -= 1
        if not pending.left:
            self._pending.remove(pending)
