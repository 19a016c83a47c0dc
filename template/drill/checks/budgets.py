"""Budgets: what is spent and reserved never passes a cap, and nothing is refused too early."""

import asyncio
import datetime as dt

from drill.environment import Environment, User, tally
from drill.guarantees import guarantee
from drill.policy import TIGHT
from drill.wiring import work
from gateway.counts import counted
from gateway.db.tables import utc_now

CLIENTS = 8


@guarantee(
    "Of 500 calls at once that cost their bound, a cap that pays for 37 lets 37 through",
    "37 times ok, 463 times 402 budget_exceeded; 37 calls at the provider; paid is what it billed",
)
async def exact_cap(environment: Environment) -> str:
    user = await environment.create_user("capped")
    await environment.simulator.queue(**work.FULL)
    answers = await environment.burst(user, 500)
    calls = await environment.simulator.calls()
    paid = sum(attempt.cost_nano_usd for attempt in await environment.attempts(user))
    billed = sum(map(work.billed, calls))
    books = "paid is what it billed" if paid == billed else f"paid {paid} of {billed}"
    return f"{tally(answers)}; {counted(len(calls), 'call')} at the provider; {books}"


@guarantee(
    "Calls that cost a tenth of their bound are refused only within one bound of the cap",
    "refused within one bound of the cap, which is not passed",
)
async def no_early_refusal(environment: Environment) -> str:
    user = await environment.create_user("tight")
    refused = await asyncio.gather(
        *(_ask_until_refused(environment, user, n) for n in range(CLIENTS))
    )
    ledger = [(each.closed_at, each.cost_nano_usd) for each in await environment.attempts(user)]
    before = sum(cost for closed_at, cost in ledger if closed_at <= min(refused))
    cap, spent = TIGHT * work.BOUND, sum(cost for _, cost in ledger)
    where = "within" if before > cap - work.BOUND else "not within"
    return f"refused {where} one bound of the cap, which is {'not ' * (spent <= cap)}passed"


async def _ask_until_refused(environment: Environment, user: User, number: int) -> dt.datetime:
    """When the answer to the first refusal was there."""
    service = environment.services[number % len(environment.services)]
    while (answer := await environment.ask(user, service)).status != 402:
        if answer.status >= 400:
            raise RuntimeError(answer.code)
    return utc_now()
