"""A provider whose account has no credit left."""

from drill.environment import Environment, eventually
from drill.guarantees import guarantee


@guarantee(
    "A provider whose quota is used up is asked once, costs nothing, and raises an alert",
    "503 provider_quota_exceeded without Retry-After; 1 call; 0 nano-dollars; 1 alert",
)
async def quota(environment: Environment) -> str:
    user = await environment.create_user("roomy")
    await environment.simulator.queue("quota")
    answer = await environment.ask(user)

    def alerts() -> list[str]:
        return [alert for alert in environment.owner.received if alert.startswith("account:")]

    async def is_told() -> bool:
        return bool(alerts())

    await eventually(is_told, seconds=10)
    (attempt,), calls = await environment.attempts(user), await environment.simulator.calls()
    pause = "with" if "Retry-After" in answer.headers else "without"
    return (
        f"{answer.code} {pause} Retry-After; {len(calls)} call; "
        f"{attempt.cost_nano_usd} nano-dollars; {len(alerts())} alert"
    )
