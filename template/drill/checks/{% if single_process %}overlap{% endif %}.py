"""A deployment that overlaps: two processes at once, where only one may serve."""

import asyncio

from drill.environment import Environment
from drill.guarantees import guarantee

WAIT_SECONDS = 3


@guarantee(
    "A second process waits until the first has stopped: limits are never doubled",
    "the second waited, and served when the first had stopped",
)
async def overlap(environment: Environment) -> str:
    (first,) = environment.services
    second = await environment.start()
    await asyncio.sleep(WAIT_SECONDS)
    both = await second.is_ready(environment.http)
    await first.stop()
    await second.wait_until_ready(environment.http)
    environment.services = [second]
    waited = "served with the first" if both else "waited"
    return f"the second {waited}, and served when the first had stopped"
