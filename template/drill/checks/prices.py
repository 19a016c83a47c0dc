"""A price that changes."""

from drill import policy
from drill.environment import Environment
from drill.guarantees import guarantee
from drill.wiring import work


@guarantee(
    "A new price counts for new calls only: what was recorded keeps its own",
    "before and after at 1 price, the new call at 2 times of it",
)
async def price_change(environment: Environment) -> str:
    user = await environment.create_user("roomy")
    await environment.ask(user)
    (before,) = await environment.attempts(user)
    await environment.replace(
        POLICY_DIR=str(policy.write(environment.directory / "dearer", dearer=2))
    )
    await environment.ask(user)
    after, new = await environment.attempts(user)
    kept = (before.price, before.cost_nano_usd) == (after.price, after.cost_nano_usd)
    prices = 1 if kept and after.cost_nano_usd == work.USUAL else 2
    times = new.cost_nano_usd // after.cost_nano_usd
    return f"before and after at {prices} price, the new call at {times} times of it"
