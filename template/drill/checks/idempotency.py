"""A request that is sent again is answered again, and paid once."""

import secrets

from drill.environment import Environment, tally
from drill.guarantees import guarantee


@guarantee(
    "Requests with the same Idempotency-Key run once, over all processes, and are paid once",
    "1 time ok, 19 times 409 idempotency_in_flight; then the same answer; 1 call, 1 payment",
)
async def retry(environment: Environment) -> str:
    user, key = await environment.create_user("roomy"), secrets.token_hex(8)
    await environment.simulator.queue("slow", seconds=2)
    answers = await environment.burst(user, 20, key)
    (first,) = (answer.body for answer in answers if answer.status < 400)
    replays = {answer.body for answer in await environment.burst(user, 3, key)}
    then = "the same answer" if replays == {first} else "another answer"
    calls, paid = await environment.simulator.calls(), await environment.attempts(user)
    return f"{tally(answers)}; then {then}; {len(calls)} call, {len(paid)} payment"
