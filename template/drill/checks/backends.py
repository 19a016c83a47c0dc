"""Without what it stands on, the service generates nothing, lives on, and comes back by itself."""

import asyncio
import time
from contextlib import AbstractContextManager

from drill.environment import INTERVAL_SECONDS, Answer, Scene, eventually
from drill.processes import Service
from gateway.counts import counted

BACK_SECONDS = 30
ABSENT = (
    "generation 503 within 1 s, /readyz 503 within 1 s, /livez 200 within 1 s; "
    "0 calls at the provider; then ok"
)


async def without(scene: Scene, absence: AbstractContextManager[None]) -> str:
    """What every process says during the absence, and whether it generates after it."""
    with absence:
        during = await asyncio.gather(*(_look(scene, each) for each in scene.services))
        calls = len(await scene.simulator.calls())
    back = await asyncio.gather(*(_generates(scene, each) for each in scene.services))
    told = "; ".join(sorted(set(during)))
    return (
        f"{told}; {counted(calls, 'call')} at the provider; then {'ok' if all(back) else 'nothing'}"
    )


async def _look(scene: Scene, service: Service) -> str:
    requests = {
        "generation": scene.ask(scene.user, service),
        "/readyz": _readiness(scene, service),
        "/livez": scene.get(service, "/livez"),
    }
    answers = zip(requests, await asyncio.gather(*requests.values()), strict=True)
    # Rounded: the machine has other things to do as well.
    return ", ".join(
        f"{name} {a.status} within {max(1, round(a.seconds))} s" for name, a in answers
    )


async def _readiness(scene: Scene, service: Service) -> Answer:
    """What /readyz says, which may know it from a moment before: it is asked for a second."""
    started = time.monotonic()
    while True:
        answer = await scene.get(service, "/readyz")
        seconds = time.monotonic() - started
        if answer.status == 503 or seconds > 1:
            return answer._replace(seconds=seconds)
        await asyncio.sleep(INTERVAL_SECONDS)


async def _generates(scene: Scene, service: Service) -> bool:
    async def is_back() -> bool:
        return (await scene.ask(scene.user, service)).status < 400

    return await eventually(is_back, BACK_SECONDS)
