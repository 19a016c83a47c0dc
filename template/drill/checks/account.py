"""A provider whose account has no credit left."""

from drill.environment import Scene, eventually
from drill.guarantees import promise


@promise(
    "A provider whose quota is used up is asked once, costs nothing, and the owner is told",
    "503 provider_quota_exceeded without Retry-After; 1 call; 0 nano-dollars; 1 alert",
)
async def quota(scene: Scene) -> str:
    user = await scene.create_user("roomy")
    await scene.simulator.queue("quota")
    answer = await scene.ask(user)

    def alerts() -> list[str]:
        return [alert for alert in scene.owner.told if alert.startswith("account:")]

    async def is_told() -> bool:
        return bool(alerts())

    await eventually(is_told, seconds=10)
    (attempt,), calls = await scene.attempts(user), await scene.simulator.calls()
    pause = "with" if "Retry-After" in answer.headers else "without"
    return (
        f"{answer.code} {pause} Retry-After; {len(calls)} call; "
        f"{attempt.cost_nano_usd} nano-dollars; {len(alerts())} alert"
    )
