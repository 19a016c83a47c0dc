"""Alerts are posted once."""

import asyncio

from drill.environment import Environment, eventually
from drill.guarantees import guarantee
from drill.wiring import work

PERCENTS = ("50", "80", "100")
# As long as several looks of every process.
QUIET_SECONDS = 2


@guarantee(
    "At 50, 80 and 100 % of a cap an alert is posted once, whichever process sees it",
    "posted once each: 50, 80, 100",
)
async def once(environment: Environment) -> str:
    user = await environment.create_user("tight")
    await environment.simulator.queue(**work.FULL)
    await environment.burst(user, 20)

    def posted() -> list[str]:
        mine = (alert for alert in environment.owner.received if f":{user.id}:" in alert)
        return [alert.rpartition(":")[2] for alert in mine]

    async def are_all_posted() -> bool:
        return set(PERCENTS) <= set(posted())

    await eventually(are_all_posted, seconds=10)
    await asyncio.sleep(QUIET_SECONDS)
    return f"posted once each: {', '.join(sorted(posted(), key=int))}"
