"""A process that is killed in the middle of a call, and what becomes of its reservation."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import aiohttp
from sqlalchemy import Row, select

from drill.environment import Environment, eventually
from drill.guarantees import guarantee
from drill.wiring import work
from gateway.db.tables import accounts, attempts, users
from gateway.ledger.budget import accounts_of

KILLED = "killed"
OPEN = ("reserved", "sent")
# The deadline of the call, the margin of its lease, and a sweep.
LEASE_SECONDS = 30


@guarantee(
    "A process that is killed in the middle of a call leaves the call's bound reserved",
    "its bound is reserved; the next process serves",
)
async def killed(environment: Environment) -> str:
    user = await environment.create_user("roomy", KILLED)
    await environment.simulator.queue("timeout", times=1)
    victim = environment.services.pop()
    call = asyncio.create_task(environment.ask(user, victim))

    async def is_at_the_provider() -> bool:
        return bool(await environment.simulator.calls())

    await eventually(is_at_the_provider, seconds=5)
    await victim.kill()
    with contextlib.suppress(aiohttp.ClientError):
        await call
    environment.services.append(await environment.start_like_a_host())
    (attempt,) = await environment.attempts(user)
    kept = attempt.state in OPEN and attempt.bound_nano_usd == work.BOUND
    served = await environment.ask(environment.user, environment.services[-1])
    state = "its bound is reserved" if kept else f"it is {attempt.state}"
    return f"{state}; the next process {'serves' if served.status < 400 else served.code}"


@guarantee(
    "No reservation outlives its lease: in the end all are settled, and every account adds up",
    "the killed call is uncertain at its bound; 0 reservations; all accounts add up",
)
async def nothing_is_left_open(environment: Environment) -> str:
    async def is_over() -> bool:
        return not await environment.fetch(select(attempts.c.id).where(attempts.c.state.in_(OPEN)))

    await eventually(is_over, LEASE_SECONDS)
    rows = await environment.fetch(select(attempts))
    ids = select(users.c.id).where(users.c.email == f"{KILLED}@example.com")
    (owner,) = await environment.fetch(ids)
    (lost,) = (row for row in rows if row.user_id == owner.id)
    cost = "its bound" if lost.cost_nano_usd == lost.bound_nano_usd else str(lost.cost_nano_usd)
    left = sum(row.state in OPEN for row in rows)
    wrong = [
        row.name
        for row in await environment.fetch(select(accounts))
        if (row.spent_nano_usd, row.reserved_nano_usd) != _of(row, rows)
    ]
    books = f"{wrong} do not add up" if wrong else "all accounts add up"
    return f"the killed call is {lost.state} at {cost}; {left} reservations; {books}"


def _of(account: Row[Any], rows: Iterable[Row[Any]]) -> tuple[int, int]:
    """What the attempts of an account and its period say that it spent and has reserved."""
    mine = [
        row
        for row in rows
        if row.day.startswith(account.period)
        and account.name in accounts_of(row.user_id, row.plan, row.key_id, row.team_id)
    ]
    spent = sum(row.cost_nano_usd for row in mine if row.state not in OPEN)
    return spent, sum(row.bound_nano_usd for row in mine if row.state in OPEN)
