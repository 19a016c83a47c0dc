"""A request that is sent again is answered again, and paid once."""

import secrets

from drill.environment import Scene, tally
from drill.guarantees import promise


@promise(
    "Requests with the same Idempotency-Key run once, over all processes, and are paid once",
    "1 time ok, 19 times 409 idempotency_in_flight; then the same answer; 1 call, 1 payment",
)
async def retry(scene: Scene) -> str:
    user, key = await scene.create_user("roomy"), secrets.token_hex(8)
    await scene.simulator.queue("slow", seconds=2)
    answers = await scene.burst(user, 20, key)
    (first,) = (answer.body for answer in answers if answer.status < 400)
    replays = {answer.body for answer in await scene.burst(user, 3, key)}
    then = "the same answer" if replays == {first} else "another answer"
    calls, paid = await scene.simulator.calls(), await scene.attempts(user)
    return f"{tally(answers)}; then {then}; {len(calls)} call, {len(paid)} payment"
