"""Replicas whose policy files differ, as they do while a new version is deployed."""

from drill import policy
from drill.promises import promise
from drill.scene import Scene


@promise(
    "A replica with older policy files generates nothing and is not ready, once a newer one serves",
    "the older ones 503 generation_stopped, /readyz 503; the newer one ok",
)
async def outdated(scene: Scene) -> str:
    older = scene.services
    newer = await scene.start(POLICY_DIR=str(policy.write(scene.directory / "dearest", dearer=3)))
    await newer.wait_until_ready(scene.http)
    refused = {(await scene.ask(scene.user, service)).code for service in older}
    ready = {(await scene.get(service, "/readyz")).status for service in older}
    served = await scene.ask(scene.user, newer)
    scene.services = [newer]
    told = ", ".join(sorted(refused)), ", ".join(map(str, sorted(ready)))
    return f"the older ones {told[0]}, /readyz {told[1]}; the newer one {served.code}"
