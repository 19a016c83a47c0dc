"""The ledger in tests: generations of any maximum cost, and a check that the accounts add up."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, event, select, update

from gateway.accounts.principals import NO_LIMITS, KeyLimits, Principal, Role, Scope
from gateway.circuit_breaker.window import Permit
from gateway.db.tables import accounts, alerts, attempts, utc_now
from gateway.ids import new_id
from gateway.ledger.batch import OPEN
from gateway.ledger.budget import AccountPeriod, accounts_of, periods
from gateway.ledger.ledger import Ledger
from gateway.pipeline.generation import (
    Attempt,
    AttemptResult,
    Candidate,
    Generation,
    GenerationRequest,
)
from gateway.policy import Cap, Model, Policy
from gateway.providers.base import Deadline, Outcome, ProviderRequest, Usage
from gateway.rate_limits.base import AcquireRequest, Admission
from gateway.rate_limits.limits import Lease
from tests.fake_provider import FakeProvider
from tests.support import Service, User, chat

ECHO = "offline/echo"
# What an output token of offline/echo costs, in nano-dollars.
UNIT = 2000
Sums = dict[AccountPeriod, tuple[int, int]]


def add_plans(policy_dir: Path, plans: str = "", service: str = "") -> None:
    """Plans in addition to the tests' own, and what the whole service may use."""
    with (policy_dir / "plans.toml").open("a", encoding="utf-8") as file:
        file.write(f"{plans}\n[service]\n{service}\n")


def usd(nano_usd: int) -> str:
    """An amount as policy files write it."""
    return f"{nano_usd // 10**9}.{nano_usd % 10**9:09}"


def principal_of(user: User, plan: str = "many", limits: KeyLimits | None = None) -> Principal:
    """`user`, by a credential that has limits of its own if `limits` are given."""
    key_id = f"key_{user.id}" if limits else None
    every = frozenset(Scope)
    return Principal(user.id, Role.USER, plan, every, key_id, limits or NO_LIMITS)


def call_of(principal: Principal, model: str = ECHO, seconds: float = 30.0) -> GenerationRequest:
    """What `chat()` asks for, as the gateway takes it."""
    return GenerationRequest(
        principal, "chat", model, {"messages": chat()["messages"]}, "req_1", seconds
    )


def capped(
    principal: Principal, day: int | None = None, month: int | None = None, kind: str = "user"
) -> tuple[Cap, ...]:
    """All that calls of `principal` count against; the account of `kind` has caps, in units."""
    own = [None if most is None else most * UNIT for most in (day, month)]
    names = accounts_of(principal.user_id, principal.plan, principal.key_id, principal.team_id)
    kinds = [name.partition(":")[0] for name in names]
    return tuple(
        Cap(n, *(own if k == kind else (None, None))) for n, k in zip(names, kinds, strict=True)
    )


def ledger_of(service: Service) -> Ledger:
    """As another process of the same service has one."""
    policy: Policy = service.engine.policy
    return Ledger(service.database, policy, keep_content=True)


def generation_of(
    service: Service,
    principal: Principal,
    max_units: int = 1,
    caps: tuple[Cap, ...] = (),
    seconds: float = 60,
) -> Generation:
    """An admitted generation with a maximum cost of `max_units` units."""
    policy: Policy = service.engine.policy
    model, call = policy.model(ECHO), call_of(principal, seconds=seconds)
    caps = caps or policy.caps(principal.user_id, principal.plan, principal.team)
    lease = Lease(AcquireRequest(()), Admission(True, ()), tokens=0)
    generation = Generation(call, caps, lease, Deadline(seconds), new_id("pred"))
    generation.attempt = attempt_of(generation, model, max_units)
    return generation


def attempt_of(generation: Generation, model: Model, max_units: int) -> Attempt:
    """An attempt that was sent."""
    body = generation.call.body
    request = ProviderRequest(model, body, generation.deadline)
    request.sent = True
    candidate = Candidate(model, FakeProvider(), Usage(output_tokens=max_units), body)
    return Attempt(candidate, request, Permit(model, 0.0))


async def begin(ledger: Ledger, generation: Generation) -> Generation:
    """Open the attempt of `generation`."""
    await ledger.reserve(generation, generation.current)
    return generation


async def end(ledger: Ledger, generation: Generation, units: int | None = None) -> None:
    """Settle it at `units`; at its maximum if None."""
    usage = None if units is None else Usage(output_tokens=units)
    ending = AttemptResult("succeeded", Outcome.OK, usage, {"choices": []})
    generation.count(ending)
    await ledger.settle(generation, generation.current, ending)


async def expire(service: Service) -> None:
    """Let every lease run out, as if much time had passed."""
    await service.write(update(attempts).values(lease_until=utc_now() - dt.timedelta(seconds=1)))


async def held(service: Service) -> Sums:
    """What every account has spent and reserved, those with nothing left out."""
    rows = await service.database.fetch(select(accounts))
    sums = {(row.name, row.period): (row.spent_nano_usd, row.reserved_nano_usd) for row in rows}
    return {key: pair for key, pair in sums.items() if pair != (0, 0)}


async def sums_of_attempts(service: Service) -> Sums:
    """What every account should hold, by the attempts."""
    spent: Counter[AccountPeriod] = Counter()
    reserved: Counter[AccountPeriod] = Counter()
    for row in await service.rows(attempts):
        for name in accounts_of(row.user_id, row.plan, row.key_id, row.team_id):
            for period in periods(row.day):
                spent[name, period] += row.cost_nano_usd
                reserved[name, period] += row.bound_nano_usd if row.state in OPEN else 0
    sums = {key: (spent[key], reserved[key]) for key in spent}
    return {key: pair for key, pair in sums.items() if pair != (0, 0)}


async def check_accounts(service: Service) -> Sums:
    """What every account holds; checks that it is the sum of its attempts."""
    sums = await held(service)
    assert sums == await sums_of_attempts(service)
    return sums


async def budget_alerts(service: Service, account: str) -> list[tuple[str, int]]:
    """Period and percentage of every alert about `account`."""
    rows = (row.details for row in await service.rows(alerts) if row.kind == "budget")
    return [(row["period"], row["percent"]) for row in rows if row["account"] == account]


@contextmanager
def watching(caps: Mapping[str, int]) -> Iterator[list[str]]:
    """Every account that was above its cap in anything that was committed meanwhile."""
    above: list[str] = []

    def look(connection: Connection) -> None:
        for row in connection.execute(select(accounts)):
            if row.spent_nano_usd + row.reserved_nano_usd > caps.get(row.name, 10**18):
                above.append(f"{row.name}: {row.spent_nano_usd} + {row.reserved_nano_usd}")

    event.listen(Engine, "commit", look)
    try:
        yield above
    finally:
        event.remove(Engine, "commit", look)
