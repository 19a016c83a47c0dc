"""What the guard carries along its path: a call, the generation it becomes, and its ending."""

import datetime as dt
import time
from dataclasses import dataclass, field
from typing import Any

from app.auth.principal import Principal
from app.db.tables import utc_now
from app.errors import ServiceError
from app.guard import pricing
from app.guard.limits import Grant, headers
from app.ids import new_id
from app.policy import Kind, Model
from app.providers.base import Body, Job, Outcome, Provider, Usage


@dataclass(slots=True)
class Call:
    """A generation that a client asks for.

    `body` is the request without `model` and what concerns transport; `seconds` bounds all the
    work for it.
    """

    principal: Principal
    kind: Kind
    model: str
    body: Body
    request_id: str
    seconds: float
    idempotency_key: str | None = None
    keep_output: bool = True


@dataclass(slots=True)
class Ending:
    """How an attempt ended. `usage` is None when unknown; `billed` false when it cost nothing."""

    status: str
    outcome: Outcome
    usage: Usage | None = None
    output: Any = None
    error: ServiceError | None = None
    billed: bool = True


@dataclass(slots=True)
class Generation:
    """A call that was admitted, with its attempt at a provider."""

    call: Call
    model: Model
    provider: Provider
    job: Job
    bound: Usage
    grant: Grant
    id: str = field(default_factory=lambda: new_id("pred"))
    attempt_id: str = field(default_factory=lambda: new_id("att"))
    opened_at: dt.datetime = field(default_factory=utc_now)
    started: float = field(default_factory=time.monotonic)

    @property
    def headers(self) -> dict[str, str]:
        """What every answer to a generation bears."""
        names = {"X-Prediction-ID": self.id, "x-served-model": self.model.id}
        return {**names, **headers(self.grant.admission)}

    @property
    def latency_ms(self) -> int:
        return round((time.monotonic() - self.started) * 1000)

    def settlement(self, ending: Ending) -> tuple[str, int]:
        """The attempt's last state, and its cost in nano-dollars.

        What cannot be known is paid at the bound; cost is never guessed.
        """
        if ending.usage is not None:
            return "settled", pricing.cost(self.model.price, ending.usage)
        # Work that was begun there may go on, whatever became of later requests.
        if self.job.remote_id is None and not (self.job.sent and ending.billed):
            return "released", 0
        return "uncertain", pricing.cost(self.model.price, self.bound)

    def used_tokens(self, ending: Ending) -> int | None:
        """What counts against the limits; None when it is not known."""
        if self.settlement(ending)[0] == "released":
            return 0
        return ending.usage and ending.usage.input_tokens + ending.usage.output_tokens
