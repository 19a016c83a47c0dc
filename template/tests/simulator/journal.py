"""The journal: every request that the simulator received, and what came of it."""

from collections import deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tests.simulator.exchange import Billed

Outcome = Literal["open", "answered", "dropped", "abandoned"]

# Keeps only the last requests: a benchmark sends many.
_KEPT = 10_000


@dataclass(slots=True)
class Call:
    """One request. `abandoned` means that the client left before the end of the answer."""

    number: int
    provider: str
    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any] | None
    fault: str | None = None
    status: int | None = None
    billed: Billed | None = None
    outcome: Outcome = "open"


class Journal:
    """The last calls, oldest first; `total` counts all of them since the start."""

    def __init__(self) -> None:
        self.total = 0
        self._calls: deque[Call] = deque(maxlen=_KEPT)

    def record(self, provider: str, method: str, path: str, headers: dict[str, str]) -> Call:
        """Open the entry of a request; its fields are filled in as it is answered."""
        self.total += 1
        call = Call(self.total, provider, method, path, headers, body=None)
        self._calls.append(call)
        return call

    def clear(self) -> None:
        """Forget the calls; the count goes on, so that ids stay unique."""
        self._calls.clear()

    @property
    def calls(self) -> list[Call]:
        """The calls that are still known."""
        return list(self._calls)

    def as_json(self) -> list[dict[str, Any]]:
        """Give the calls as plain JSON values."""
        return [asdict(call) for call in self._calls]
