"""A process that is killed in the middle of a call, and what becomes of its reservation."""

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any

import aiohttp
from sqlalchemy import Row, select

from drill.environment import Scene, eventually
from drill.guarantees import promise
from drill.wiring import work
from gateway.db.tables import accounts, attempts, users

KILLED = "killed"
OPEN = ("reserved", "sent")
# The deadline of the call, the margin of its lease, and whoever sweeps.
LEASE_SECONDS = 30


@promise(
    "A process that is killed in the middle of a call leaves the call's bound reserved",
    "its bound is reserved; the next process serves",
)
async def killed(scene: Scene) -> str:
    user = await scene.create_user("roomy", KILLED)
    await scene.simulator.queue("timeout", times=1)
    victim = scene.services.pop()
    call = asyncio.create_task(scene.ask(user, victim))

    async def is_at_the_provider() -> bool:
        return bool(await scene.simulator.calls())

    await eventually(is_at_the_provider, seconds=5)
    await victim.kill()
    with contextlib.suppress(aiohttp.ClientError):
        await call
    scene.services.append(await scene.start_like_a_host())
    (attempt,) = await scene.attempts(user)
    kept = attempt.state in OPEN and attempt.bound_nano_usd == work.BOUND
    served = await scene.ask(scene.user, scene.services[-1])
    state = "its bound is reserved" if kept else f"it is {attempt.state}"
    return f"{state}; the next process {'serves' if served.status < 400 else served.code}"


@promise(
    "No reservation outlives its lease: in the end all are settled, and every account adds up",
    "the killed call is uncertain at its bound; 0 reservations; all accounts add up",
)
async def nothing_is_left_open(scene: Scene) -> str:
    async def is_over() -> bool:
        return not await scene.fetch(select(attempts.c.id).where(attempts.c.state.in_(OPEN)))

    await eventually(is_over, LEASE_SECONDS)
    rows = await scene.fetch(select(attempts))
    ids = select(users.c.id).where(users.c.email == f"{KILLED}@example.com")
    (owner,) = await scene.fetch(ids)
    (lost,) = (row for row in rows if row.user_id == owner.id)
    cost = "its bound" if lost.cost_nano_usd == lost.bound_nano_usd else str(lost.cost_nano_usd)
    left = sum(row.state in OPEN for row in rows)
    wrong = [
        row.name
        for row in await scene.fetch(select(accounts))
        if (row.spent_nano_usd, row.reserved_nano_usd) != _of(row, rows)
    ]
    books = f"{wrong} do not add up" if wrong else "all accounts add up"
    return f"the killed call is {lost.state} at {cost}; {left} reservations; {books}"


def _of(account: Row[Any], rows: Iterable[Row[Any]]) -> tuple[int, int]:
    """What the attempts of an account and its period say that it spent and has reserved."""
    kind, _, name = account.name.partition(":")
    mine = [
        row
        for row in rows
        if row.day.startswith(account.period)
        and {"service": "", "plan": row.plan, "user": row.user_id, "key": row.key_id}[kind] == name
    ]
    spent = sum(row.cost_nano_usd for row in mine if row.state not in OPEN)
    return spent, sum(row.bound_nano_usd for row in mine if row.state in OPEN)
