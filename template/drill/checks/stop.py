"""The emergency stop."""

import asyncio
import time

from drill.environment import Answer, Environment
from drill.guarantees import guarantee

# Longer than two of the pauses between calls, and shorter than the deadline of a call.
SLOW_SECONDS = 4


@guarantee(
    "A stop ends all generation on every process within a second, also what runs",
    "refused and ended (503 generation_stopped) within 1 s; then ok",
)
async def emergency_stop(environment: Environment) -> str:
    await environment.simulator.queue("slow", seconds=SLOW_SECONDS)
    stopping = asyncio.create_task(
        environment.command("stop", "--running", "--reason", "A drill", "--json")
    )
    begun: dict[asyncio.Task[Answer], float] = {}
    # On a busy machine the command takes longer than a call may: calls begin until it is done.
    while not stopping.done():
        begun[asyncio.create_task(environment.ask(environment.user))] = time.monotonic()
        await asyncio.wait([stopping], timeout=1)
    await stopping
    stopped_at = time.monotonic()
    over = [call for call, at in begun.items() if stopped_at - at > SLOW_SECONDS - 2]
    answers = [await environment.ask(environment.user, service) for service in environment.services]
    answers += [await call for call in begun if call not in over]
    seconds = max(1, round(time.monotonic() - stopped_at))
    await asyncio.gather(*over)
    await environment.simulator.reset()
    await environment.command("start", "--json")
    after = await environment.ask(environment.user)
    kind = " and ".join({answer.code for answer in answers})
    return f"refused and ended ({kind}) within {seconds} s; then {after.code}"
