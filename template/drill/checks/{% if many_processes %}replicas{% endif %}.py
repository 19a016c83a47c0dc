"""Replicas whose policy files differ, as they do while a new version is deployed."""

from drill import policy
from drill.environment import Scene, eventually
from drill.guarantees import promise


@promise(
    "A replica with older policy files generates nothing and is not ready, once a newer one serves",
    "the older ones 503 generation_stopped, not ready within 1 s; the newer one ok",
)
async def outdated(scene: Scene) -> str:
    older = scene.services
    newer = await scene.start(POLICY_DIR=str(policy.write(scene.directory / "dearest", dearer=3)))
    await newer.wait_until_ready(scene.http)
    refused = {(await scene.ask(scene.user, service)).code for service in older}

    async def none_is_ready() -> bool:
        return not any([await service.is_ready(scene.http) for service in older])

    ready = "not ready" if await eventually(none_is_ready, seconds=1) else "ready"
    served = await scene.ask(scene.user, newer)
    scene.services = [newer]
    told = " and ".join(sorted(refused))
    return f"the older ones {told}, {ready} within 1 s; the newer one {served.code}"
