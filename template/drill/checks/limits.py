"""Limits are exact, and what they say is true."""

import asyncio

from drill.environment import Answer, Environment, User, tally
from drill.guarantees import guarantee


async def _burst_then_wait(environment: Environment, user: User, count: int) -> str:
    """Ask at once, then once more after the longest Retry-After."""
    answers = await environment.burst(user, count)
    await asyncio.sleep(max(map(_wait, answers)))
    late = await environment.ask(user)
    return f"{tally(answers)}; then {late.code}"


def _wait(answer: Answer) -> int:
    return answer.retry_after if answer.status == 429 else 0


@guarantee(
    "A limit of requests is exact over all processes, and its Retry-After is true",
    "12 times ok, 188 times 429 rate_limit_exceeded requests; then ok",
)
async def requests(environment: Environment) -> str:
    return await _burst_then_wait(environment, await environment.create_user("requests"), 200)


@guarantee(
    "A limit of concurrent generations is exact over all processes",
    "3 times ok, 47 times 429 rate_limit_exceeded concurrency; then ok",
)
async def slots(environment: Environment) -> str:
    user = await environment.create_user("slots")
    await environment.simulator.queue("slow", seconds=2)
    answers = await environment.burst(user, 50)
    late = await environment.ask(user)
    return f"{tally(answers)}; then {late.code}"
