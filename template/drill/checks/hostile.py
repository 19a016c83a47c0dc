"""What one caller does, the others do not notice."""

import asyncio
import time
from collections import Counter

from drill.hostile import TURNS, attack
from drill.promises import promise
from drill.scene import Scene
from drill.wiring import work

QUIET_SECONDS, SECONDS = 5, 60
INTERVAL_SECONDS = 0.25
# What the slowest of a hundred looks may take longer than without them.
MOST_SECONDS = 0.25


@promise(
    "Eight hostile callers at once for a minute hurt nobody else",
    "a caller beside them: ok; /livez at the 99th percentile within 250 ms of without them",
)
async def hostile(scene: Scene) -> str:
    if work.STREAMS:
        await scene.simulator.queue("stall")  # on streams alone
    _, quiet = await _beside(scene, QUIET_SECONDS)
    users = [await scene.create_user("roomy") for _ in TURNS]
    attacks = [
        asyncio.create_task(attack(scene, user, turn))
        for user, turn in zip(users, TURNS, strict=True)
    ]
    try:
        codes, loud = await _beside(scene, SECONDS)
    finally:
        for each in attacks:
            each.cancel()
        ended = await asyncio.gather(*attacks, return_exceptions=True)
    failures = [repr(end) for end in ended if isinstance(end, Exception)]
    late = loud - quiet
    within = "within 250 ms" if late <= MOST_SECONDS else f"{late * 1000:.0f} ms"
    seen = " and ".join([*sorted(codes), *failures])
    return f"a caller beside them: {seen}; /livez at the 99th percentile {within} of without them"


async def _beside(scene: Scene, seconds: float) -> tuple[Counter[str], float]:
    """What a well-behaved caller is told, by code, and how long /livez takes at the 99th
    percentile, in seconds.
    """
    codes: Counter[str] = Counter()
    looks: list[float] = []
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        service = scene.services[len(looks) % len(scene.services)]
        answer, look = await asyncio.gather(
            scene.ask(scene.user, service), scene.get(service, "/livez")
        )
        codes[answer.code] += 1
        looks.append(look.seconds)
        await asyncio.sleep(INTERVAL_SECONDS)
    return codes, sorted(looks)[len(looks) * 99 // 100]
