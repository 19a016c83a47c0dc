"""A deployment that overlaps: two processes at once, where only one may serve."""

import asyncio

from drill.environment import Scene
from drill.guarantees import promise

WAIT_SECONDS = 3


@promise(
    "A second process waits until the first has stopped: limits are never doubled",
    "the second waited, and served when the first had stopped",
)
async def overlap(scene: Scene) -> str:
    (first,) = scene.services
    second = await scene.start()
    await asyncio.sleep(WAIT_SECONDS)
    both = await second.is_ready(scene.http)
    await first.stop()
    await second.wait_until_ready(scene.http)
    scene.services = [second]
    waited = "served beside the first" if both else "waited"
    return f"the second {waited}, and served when the first had stopped"
