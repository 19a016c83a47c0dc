"""What passes between the server and a wire format: an exchange comes in, a reply goes out.

Wire formats compute replies and touch no socket, so every fault of delivery is played in one
place (`delivery.py`) for all of them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.simulator.faults import ANYWHERE, Fault, Kind, Refusal, RefusedError

Billed = Mapping[str, float]
"""What a provider charges for: `input_tokens` and `output_tokens`, or `seconds`."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request as a wire format sees it: parsed, and with the fault it is to play."""

    number: int
    """Counts all requests; ids are made of it, so that answers are the same in each run."""
    url: str
    """Scheme, host and port of the simulator, for the URLs in answers."""
    elsewhere: str
    """The same server under another host name, for URLs that must not be followed."""
    headers: Mapping[str, str]
    params: Mapping[str, str]
    body: dict[str, Any]
    fault: Fault | None = None
    query: Mapping[str, str] = field(default_factory=dict)

    def plays(self, *kinds: Kind) -> bool:
        """Tell whether the fault of this exchange is one of these."""
        return self.fault is not None and self.fault.kind in kinds

    def allow(self, names: frozenset[str]) -> None:
        """Refuse a body with a parameter that the API does not have, naming the first."""
        for name in self.body:
            if name not in names:
                message = f"Unknown parameter: '{name}'."
                raise RefusedError(Refusal(400, message, "unknown_parameter", param=name))

    def require(self, *names: str) -> None:
        """Refuse a body that lacks one of these fields."""
        for name in names:
            if self.body.get(name) is None:
                message = f"Missing required parameter: '{name}'."
                code = "missing_required_parameter"
                raise RefusedError(Refusal(400, message, code, param=name))


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, whole (`body`) or as a stream (`chunks`), and what the provider bills for it."""

    body: bytes = b""
    chunks: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    billed: Billed | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A route of a wire format: where it is, what answers and which faults it can play."""

    method: str
    path: str
    answer: Callable[[Exchange], Reply]
    faults: frozenset[Kind] = ANYWHERE


class WireFormat(Protocol):
    """A provider's API as the simulator speaks it. One instance serves one simulator."""

    name: str
    base: str
    """The path under which it is mounted."""
    variable: str
    """The environment variable that gives a service its base URL."""
    needs_key: bool
    """Whether a request needs a credential."""

    def routes(self) -> Sequence[Route]:
        """List the routes; the first that matches answers."""
        ...

    def refuse(self, refusal: Refusal) -> Reply:
        """Give an error the provider's shape."""
        ...

    def headers(self, number: int, /) -> dict[str, str]:
        """Make the headers that every answer of the provider carries."""
        ...

    def reset(self) -> None:
        """Forget what earlier requests left behind."""


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(value: object) -> bytes:
    """Write JSON as the providers do: compact UTF-8."""
    return _ENCODER.encode(value).encode()
