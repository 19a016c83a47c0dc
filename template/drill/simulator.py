"""The simulator from outside: faults to queue, and the journal of what reached it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import aiohttp

from tests.simulator.wiring import FORMATS


class Upstream(NamedTuple):
    """A call that reached the provider, and what it bills for it."""

    status: int | None
    outcome: str
    billed: Mapping[str, float] | None


class Simulator:
    """Steers the simulator at `url`."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._control = f"{url}/_control"
        self._http = http
        self.environment = {each.variable: url + each.base for each in FORMATS}

    async def queue(self, kind: str, times: int | None = None, **details: Any) -> None:
        """Play a fault on the next calls: `times` of them, else all until the reset."""
        faults = [{"kind": kind, "times": times, **details}]
        async with self._http.post(f"{self._control}/faults", json=faults) as response:
            response.raise_for_status()

    async def calls(self) -> list[Upstream]:
        """The generations that reached the provider since the reset."""
        async with self._http.get(f"{self._control}/calls") as response:
            journal = await response.json()
        return [
            Upstream(call["status"], call["outcome"], call["billed"])
            for call in journal["calls"]
            if call["method"] == "POST" and not call["path"].endswith("/cancel")
        ]

    async def reset(self) -> None:
        """Forget calls and faults."""
        async with self._http.post(f"{self._control}/reset") as response:
            response.raise_for_status()
