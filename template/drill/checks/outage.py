"""A provider that fails, or asks for a pause."""

import asyncio
import time

from drill.environment import Answer, Environment, eventually, tally
from drill.guarantees import guarantee

CLIENTS = 200
OUTAGE_SECONDS = 10
# Each client asks again after so long, whatever the answer says.
IMPATIENCE_SECONDS = 0.2
# Pauses grow: 1 s, 2 s, 4 s, 8 s.
PROBES = 4


@guarantee(
    "In an outage, 200 clients cause few retries, then one call per pause; one call ends it",
    "retries stay within their budget; one call per pause; back with the first call",
)
async def outage(environment: Environment) -> str:
    await environment.simulator.queue("error")
    await environment.burst(environment.user, CLIENTS)
    first = len(await environment.simulator.calls())
    ends = time.monotonic() + OUTAGE_SECONDS
    await asyncio.gather(*(_ask_until(environment, number, ends) for number in range(CLIENTS)))
    probes = len(await environment.simulator.calls()) - first
    await environment.simulator.reset()

    async def is_back() -> bool:
        return (await environment.ask(environment.user)).status < 400

    # What each process may retry at once, and a tenth of all first attempts.
    retries = 10 * environment.processes + CLIENTS // 10
    back = await eventually(is_back, seconds=30)
    after = {call.status for call in await environment.simulator.calls()}
    return "; ".join(
        [
            f"{first} calls" if first > CLIENTS + retries else "retries stay within their budget",
            f"{probes} probes" if probes > PROBES else "one call per pause",
            "back with the first call" if back and 500 not in after else f"{after}",
        ]
    )


async def _ask_until(environment: Environment, number: int, ends: float) -> None:
    service = environment.services[number % len(environment.services)]
    while time.monotonic() < ends:
        await environment.ask(environment.user, service)
        await asyncio.sleep(IMPATIENCE_SECONDS)


@guarantee(
    "A provider that answers 429 with Retry-After is left alone for so long, by every process",
    "20 times 503 provider_cooling_down; 1 call within the pause; then ok after 2 s or more",
)
async def retry_after(environment: Environment) -> str:
    await environment.simulator.queue("rate_limited", times=1, seconds=2)
    first = asyncio.create_task(environment.ask(environment.user))

    async def is_told() -> bool:
        return any(call.status == 429 for call in await environment.simulator.calls())

    await eventually(is_told, seconds=5)
    # Other processes look a tenth of a second later, at the latest.
    await asyncio.sleep(0.2)
    others = await environment.burst(environment.user, 20)
    calls = len(await environment.simulator.calls())
    answer: Answer = await first
    waited = "2 s or more" if answer.seconds >= 2 else f"{answer.seconds:.1f} s"
    return f"{tally(others)}; {calls} call within the pause; then {answer.code} after {waited}"
