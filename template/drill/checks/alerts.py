"""The owner is told once."""

import asyncio

from drill.environment import Scene, eventually
from drill.guarantees import promise
from drill.wiring import work

PERCENTS = ("50", "80", "100")
# As long as several looks of every process.
QUIET_SECONDS = 2


@promise(
    "At 50, 80 and 100 % of a cap the owner is told, once, whichever process sees it",
    "posted once each: 50, 80, 100",
)
async def once(scene: Scene) -> str:
    user = await scene.create_user("tight")
    await scene.simulator.queue(**work.FULL)
    await scene.burst(user, 20)

    def posted() -> list[str]:
        mine = (alert for alert in scene.owner.told if f":{user.id}:" in alert)
        return [alert.rpartition(":")[2] for alert in mine]

    async def are_all_posted() -> bool:
        return set(PERCENTS) <= set(posted())

    await eventually(are_all_posted, seconds=10)
    await asyncio.sleep(QUIET_SECONDS)
    return f"posted once each: {', '.join(sorted(posted(), key=int))}"
