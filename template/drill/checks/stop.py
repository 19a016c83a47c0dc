"""The emergency stop."""

import asyncio
import time

from drill.environment import Answer, Scene
from drill.guarantees import promise

# Longer than two of the pauses between calls, and shorter than the deadline of a call.
SLOW_SECONDS = 4


@promise(
    "A stop ends all generation on every process within a second, also what runs",
    "refused and ended (503 generation_stopped) within 1 s; then ok",
)
async def emergency_stop(scene: Scene) -> str:
    await scene.simulator.queue("slow", seconds=SLOW_SECONDS)
    stopping = asyncio.create_task(
        scene.command("stop", "--running", "--reason", "A drill", "--json")
    )
    begun: dict[asyncio.Task[Answer], float] = {}
    # On a busy machine the command takes longer than a call may: calls begin until it is done.
    while not stopping.done():
        begun[asyncio.create_task(scene.ask(scene.user))] = time.monotonic()
        await asyncio.wait([stopping], timeout=1)
    await stopping
    stopped_at = time.monotonic()
    over = [call for call, at in begun.items() if stopped_at - at > SLOW_SECONDS - 2]
    answers = [await scene.ask(scene.user, service) for service in scene.services]
    answers += [await call for call in begun if call not in over]
    seconds = max(1, round(time.monotonic() - stopped_at))
    await asyncio.gather(*over)
    await scene.simulator.reset()
    await scene.command("start", "--json")
    after = await scene.ask(scene.user)
    kind = " and ".join({answer.code for answer in answers})
    return f"refused and ended ({kind}) within {seconds} s; then {after.code}"
