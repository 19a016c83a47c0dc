"""Without what it stands on, the service generates nothing, lives on, and comes back by itself."""

import asyncio
import time
from contextlib import AbstractContextManager

from drill.environment import INTERVAL_SECONDS, Answer, Environment, eventually
from drill.processes import Service
from gateway.counts import counted

BACK_SECONDS = 30
ABSENT = (
    "generation 503 within 1 s, /readyz 503 within 1 s, /livez 200 within 1 s; "
    "0 calls at the provider; then ok"
)


async def without(environment: Environment, absence: AbstractContextManager[None]) -> str:
    """What every process says during the absence, and whether it generates after it."""
    with absence:
        during = await asyncio.gather(*(_look(environment, each) for each in environment.services))
        calls = len(await environment.simulator.calls())
    back = await asyncio.gather(*(_generates(environment, each) for each in environment.services))
    seen = "; ".join(sorted(set(during)))
    return (
        f"{seen}; {counted(calls, 'call')} at the provider; then {'ok' if all(back) else 'nothing'}"
    )


async def _look(environment: Environment, service: Service) -> str:
    requests = {
        "generation": environment.ask(environment.user, service),
        "/readyz": _readiness(environment, service),
        "/livez": environment.get(service, "/livez"),
    }
    answers = zip(requests, await asyncio.gather(*requests.values()), strict=True)
    # Rounded: the machine has other things to do as well.
    return ", ".join(
        f"{name} {a.status} within {max(1, round(a.seconds))} s" for name, a in answers
    )


async def _readiness(environment: Environment, service: Service) -> Answer:
    """What /readyz says, which may know it from a moment before: it is asked for a second."""
    started = time.monotonic()
    while True:
        answer = await environment.get(service, "/readyz")
        seconds = time.monotonic() - started
        if answer.status == 503 or seconds > 1:
            return answer._replace(seconds=seconds)
        await asyncio.sleep(INTERVAL_SECONDS)


async def _generates(environment: Environment, service: Service) -> bool:
    async def is_back() -> bool:
        return (await environment.ask(environment.user, service)).status < 400

    return await eventually(is_back, BACK_SECONDS)
