"""A price that changes."""

from drill import policy
from drill.environment import Scene
from drill.guarantees import promise
from drill.wiring import work


@promise(
    "A new price counts for new calls only: what was recorded keeps its own",
    "before and after at 1 price, the new call at 2 times of it",
)
async def price_change(scene: Scene) -> str:
    user = await scene.create_user("roomy")
    await scene.ask(user)
    (before,) = await scene.attempts(user)
    await scene.replace(POLICY_DIR=str(policy.write(scene.directory / "dearer", dearer=2)))
    await scene.ask(user)
    after, new = await scene.attempts(user)
    kept = (before.price, before.cost_nano_usd) == (after.price, after.cost_nano_usd)
    prices = 1 if kept and after.cost_nano_usd == work.USUAL else 2
    times = new.cost_nano_usd // after.cost_nano_usd
    return f"before and after at {prices} price, the new call at {times} times of it"
