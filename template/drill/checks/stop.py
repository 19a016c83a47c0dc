"""The emergency stop."""

import asyncio
import time

from drill.promises import promise
from drill.scene import Scene, eventually


@promise(
    "A stop ends all generation on every process within a second, also what runs",
    "refused and ended (503 generation_stopped) within 1 s; then ok",
)
async def emergency_stop(scene: Scene) -> str:
    await scene.simulator.queue("timeout", times=1)
    running = asyncio.create_task(scene.ask(scene.user))

    async def runs() -> bool:
        return bool(await scene.simulator.calls())

    await eventually(runs, seconds=5)
    await scene.command("stop", "--running", "--reason", "A drill", "--json")
    stopped_at = time.monotonic()
    answers = [await scene.ask(scene.user, service) for service in scene.services]
    answers.append(await running)
    seconds = max(1, round(time.monotonic() - stopped_at))
    await scene.command("start", "--json")
    after = await scene.ask(scene.user)
    kind = " and ".join({answer.code for answer in answers})
    return f"refused and ended ({kind}) within {seconds} s; then {after.code}"
