"""The data of the pipeline: a request, its generation, and the generation's attempts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from gateway import pricing
from gateway.accounts.principals import Principal
from gateway.circuit_breaker.window import Permit
from gateway.errors import InvalidRequest, ServiceError
from gateway.ids import new_id
from gateway.json_text import encode
from gateway.ledger.budget import Alert
from gateway.pipeline.formats import COMPLETIONS, Format
from gateway.policy import Cap, Kind, Model
from gateway.providers.base import Body, Deadline, Outcome, Provider, ProviderRequest, Usage
from gateway.rate_limits.limits import Lease, headers


@dataclass(slots=True)
class GenerationRequest:
    """A generation that a client asks for.

    `body` is the request without `model` and transport options; `given` is recorded instead of it
    if it differs. `seconds` is the deadline. `format` is the format of `body` and of the answer.
    `feature` is the application's feature that asks, None for the built-in routes.
    """

    principal: Principal
    kind: Kind
    model: str
    body: Body
    request_id: str
    seconds: float
    idempotency_key: str | None = None
    keep_output: bool = True
    given: Body | None = None
    format: Format = COMPLETIONS
    feature: str | None = None


def require_sendable(body: Body) -> None:
    """Raise `InvalidRequest` for a body that is not valid JSON: nesting, Unicode, numbers."""
    try:
        is_finite = to_json(body) == encode(body)
    except ValueError as error:
        raise InvalidRequest(
            "The body is nested too deeply, or its text is not valid Unicode."
        ) from error
    if not is_finite:
        raise InvalidRequest("A number of the body is not finite.")


@dataclass(slots=True)
class AttemptResult:
    """How an attempt ended. `usage` is None if unknown; `billed` is false if it cost nothing.

    `cost` is its share of a joined call, in nano-dollars. `provider_status`, `reason` and `alert`
    tell the operator about a failure.
    """

    status: str
    outcome: Outcome
    usage: Usage | None = None
    output: Any = None
    error: ServiceError | None = None
    billed: bool = True
    cost: int | None = None
    provider_status: int | None = None
    reason: str | None = None
    alert: Alert | None = None


@dataclass(frozen=True)
class Candidate:
    """A model that can serve the request, its provider, and the maximum usage there.

    `body` is sent to the provider; the adapter may add fields.
    """

    model: Model
    provider: Provider
    max_usage: Usage
    body: Body

    @cached_property
    def max_cost(self) -> int:
        """The maximum cost, in nano-dollars."""
        return pricing.max_cost(self.model.price, self.max_usage)

    @property
    def tokens(self) -> int:
        """The maximum tokens, which count against the limits."""
        return self.max_usage.input_tokens + self.max_usage.output_tokens


@dataclass(slots=True)
class Attempt:
    """One call of a provider, with its own reservation.

    `number` counts the attempts of a generation from 1, `tries` those with the same model. `began`
    is when the reservation was written, in seconds of the monotonic clock.
    """

    candidate: Candidate
    request: ProviderRequest
    permit: Permit
    number: int = 1
    tries: int = 1
    began: float = field(default_factory=time.monotonic)
    id: str = field(default_factory=lambda: new_id("att"))

    @property
    def model(self) -> Model:
        """The model of the attempt."""
        return self.candidate.model

    @property
    def provider(self) -> Provider:
        """The provider of the attempt."""
        return self.candidate.provider

    @property
    def max_cost(self) -> int:
        """The cost to reserve, in nano-dollars."""
        return self.candidate.max_cost

    def settlement(self, result: AttemptResult) -> tuple[str, int]:
        """The attempt's last state, and its cost in nano-dollars.

        An unknown cost is the maximum: it is not guessed.
        """
        if result.cost is not None:
            return "settled", result.cost
        if result.usage is not None:
            return "settled", pricing.cost(self.model.price, result.usage)
        # Work that runs at the provider may continue after a failed request for its state.
        if self.request.remote_id is None and not (self.request.sent and result.billed):
            return "released", 0
        return "uncertain", self.max_cost

    def exceeded_maximum(self, result: AttemptResult) -> str | None:
        """How the output exceeded its maximum, which the cost does not always show."""
        used, most = result.usage, self.candidate.max_usage.output_tokens
        if used is None or used.output_tokens <= most:
            return None
        return f"A call wrote {used.output_tokens} output tokens, and its maximum was {most}."

    def used_tokens(self, result: AttemptResult) -> int:
        """The tokens that count against the limits: the maximum if they are unknown."""
        if self.settlement(result)[0] == "released":
            return 0
        if result.usage is None:
            return self.candidate.tokens
        return result.usage.input_tokens + result.usage.output_tokens


@dataclass(slots=True)
class Generation:
    """An admitted request, and its attempts so far.

    `rest` are the candidates if the current attempt fails. `cost_nano_usd` and `used_tokens` are
    sums over all attempts that ended.
    """

    call: GenerationRequest
    caps: tuple[Cap, ...]
    lease: Lease
    deadline: Deadline
    id: str
    attempt: Attempt | None = None
    rest: Sequence[Candidate] = ()
    cost_nano_usd: int = 0
    used_tokens: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def current(self) -> Attempt:
        """The current attempt; there is one once the generation has begun."""
        assert self.attempt is not None, "the generation has begun"
        return self.attempt

    @property
    def model(self) -> Model:
        """The model that serves the generation."""
        return self.current.model

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every answer to the generation."""
        names = {"X-Prediction-ID": self.id, "x-served-model": self.model.id}
        return {**names, **headers(self.lease.admission)}

    @property
    def latency_ms(self) -> int:
        """Milliseconds since the generation started."""
        return round((time.monotonic() - self.started) * 1000)

    def count(self, result: AttemptResult) -> None:
        """Add the cost and tokens of the current attempt."""
        self.cost_nano_usd += self.current.settlement(result)[1]
        self.used_tokens += self.current.used_tokens(result)
