"""The check: callers that attack the service, as in `drill/attacks.py`, do not harm others."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from urllib.request import urlopen

from drill.attacks import TURNS, attack
from drill.environment import Environment
from drill.guarantees import guarantee
from drill.wiring import work

QUIET_SECONDS, SECONDS = 5, 60
INTERVAL_SECONDS = 0.1
# What the slowest of a hundred looks may take longer than without them.
MAX_SECONDS = 0.25


@guarantee(
    "Eight hostile callers at once for a minute harm no other caller",
    "another caller meanwhile: ok; /livez at the 99th percentile within 250 ms of without them",
)
async def hostile(environment: Environment) -> str:
    if work.STREAMS:
        await environment.simulator.queue("stall")  # on streams alone
    users = [await environment.create_user("roomy") for _ in TURNS]
    # This process is busy with the attacks: another one takes the time of /livez.
    with ProcessPoolExecutor(1, get_context("spawn")) as watcher:
        _, quiet = await _during(environment, watcher, QUIET_SECONDS)
        turns = zip(users, TURNS, strict=True)
        attacks = [asyncio.create_task(attack(environment, user, turn)) for user, turn in turns]
        try:
            codes, loud = await _during(environment, watcher, SECONDS)
        finally:
            for each in attacks:
                each.cancel()
            ended = await asyncio.gather(*attacks, return_exceptions=True)
    failures = [repr(end) for end in ended if isinstance(end, Exception)]
    seen = " and ".join([*sorted(codes), *failures])
    late = loud - quiet
    within = "within 250 ms" if late <= MAX_SECONDS else f"{late * 1000:.0f} ms"
    return (
        f"another caller meanwhile: {seen}; /livez at the 99th percentile {within} of without them"
    )


async def _during(
    environment: Environment, watcher: Executor, seconds: float
) -> tuple[Counter[str], float]:
    """The answers to a well-behaved caller, by code, and how many seconds /livez takes at the 99th
    percentile.
    """
    urls = [service.url for service in environment.services]
    looking = asyncio.get_running_loop().run_in_executor(watcher, look, urls, seconds)
    codes: Counter[str] = Counter()
    while not looking.done():
        service = environment.services[codes.total() % len(environment.services)]
        codes[(await environment.ask(environment.user, service)).code] += 1
        await asyncio.sleep(INTERVAL_SECONDS)
    looks = sorted(await looking)
    return codes, looks[len(looks) * 99 // 100]


def look(urls: Sequence[str], seconds: float) -> list[float]:
    """How many seconds each look at /livez takes, one after the other for so long."""
    looks: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        started = time.monotonic()
        with urlopen(f"{urls[len(looks) % len(urls)]}/livez") as response:  # noqa: S310
            response.read()
        looks.append(time.monotonic() - started)
        time.sleep(INTERVAL_SECONDS)
    return looks
