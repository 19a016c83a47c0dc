"""A number of clients that each ask again as soon as they have their answer, for a while.

Reads one job as JSON from standard input (see `Job`) and prints what came back, as JSON. An answer
that is not complete ends it with an error: speed counts only where nothing is lost.
"""

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import uvloop

MOST_ANSWERS = 100_000
ANSWER_SECONDS = 30
TAIL_BYTES = 16


@dataclass(frozen=True)
class Job:
    """What to send where, from how many clients at once, for how long."""

    url: str
    credential: str
    body: dict[str, Any]
    clients: int
    warm_up_seconds: float
    seconds: float

    def __post_init__(self) -> None:
        """Refuse to load anything but this machine."""
        if urlsplit(self.url).hostname != "127.0.0.1":
            raise ValueError(f"{self.url} is not on this machine.")


@dataclass
class Tally:
    """What came back: a latency for each answer, in seconds, and the chunks of all of them."""

    latencies: list[float] = field(default_factory=list)
    chunks: int = 0


class Clients:
    """All clients of one job; each keeps its connection."""

    def __init__(self, job: Job, session: aiohttp.ClientSession) -> None:
        self._job = job
        self._session = session
        self._streamed = bool(job.body.get("stream"))
        self._content = json.dumps(job.body).encode()

    async def ask_for(self, seconds: float) -> dict[str, float]:
        """Ask for so long, then wait for what is under way; return rates and latencies."""
        tally = Tally()
        started = time.perf_counter()
        until = started + seconds
        await asyncio.gather(*(self._ask_until(until, tally) for _ in range(self._job.clients)))
        elapsed = time.perf_counter() - started
        percentiles = quantiles(tally.latencies, n=100)
        return {
            "chats": len(tally.latencies) / elapsed,
            "chunks": tally.chunks / elapsed,
            "p50": percentiles[49] * 1000,
            "p99": percentiles[98] * 1000,
        }

    async def _ask_until(self, until: float, tally: Tally) -> None:
        while (asked := time.perf_counter()) < until and len(tally.latencies) < MOST_ANSWERS:
            chunks = await self._ask()
            tally.chunks += chunks
            tally.latencies.append(time.perf_counter() - asked)

    async def _ask(self) -> int:
        """Ask once; return the number of chunks."""
        lines, tail = 0, b""
        async with self._session.post(self._job.url, data=self._content) as response:
            response.raise_for_status()
            async for block in response.content.iter_any():
                lines += block.count(b"\n")
                tail = (tail + block)[-TAIL_BYTES:]
        ending = b"data: [DONE]\n\n" if self._streamed else b"}"
        if not tail.endswith(ending):
            raise ValueError(f"An answer ends with {tail!r}.")
        return lines // 2  # each chunk is a line and an empty one


async def main(job: Job) -> None:
    """Warm up, then measure."""
    headers = {"Authorization": f"Bearer {job.credential}", "Content-Type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        clients = Clients(job, session)
        await clients.ask_for(job.warm_up_seconds)
        print(json.dumps(await clients.ask_for(job.seconds)))


if __name__ == "__main__":
    uvloop.run(main(Job(**json.load(sys.stdin))))
