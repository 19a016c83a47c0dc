"""Limits are exact, and what they say is true."""

import asyncio

from drill.environment import Answer, Scene, User, tally
from drill.guarantees import promise


async def _burst_then_wait(scene: Scene, user: User, count: int) -> str:
    """Ask at once, then once more after the wait that the refused are told."""
    answers = await scene.burst(user, count)
    await asyncio.sleep(max(map(_wait, answers)))
    late = await scene.ask(user)
    return f"{tally(answers)}; then {late.code}"


def _wait(answer: Answer) -> int:
    return answer.retry_after if answer.status == 429 else 0


@promise(
    "A limit of requests is exact over all processes, and its Retry-After is true",
    "12 times ok, 188 times 429 rate_limit_exceeded requests; then ok",
)
async def requests(scene: Scene) -> str:
    return await _burst_then_wait(scene, await scene.create_user("requests"), 200)


@promise(
    "A limit of concurrent generations is exact over all processes",
    "3 times ok, 47 times 429 rate_limit_exceeded concurrency; then ok",
)
async def slots(scene: Scene) -> str:
    user = await scene.create_user("slots")
    await scene.simulator.queue("slow", seconds=2)
    answers = await scene.burst(user, 50)
    late = await scene.ask(user)
    return f"{tally(answers)}; then {late.code}"
