"""Budgets hold at every instant, whatever happens at the same time, over all processes."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import delete

from app import wiring
from gateway import pricing
from gateway.db.tables import accounts, alerts, attempts, predictions
from gateway.errors import ServiceError
from gateway.ledger.sweeper import Sweeper
from gateway.pipeline.pipeline import Pipeline
from gateway.policy import Policy
from gateway.providers.base import Chunks, ProviderFailure, ProviderRequest, Reply, Usage
from tests.fake_provider import MAX_COST, FakeProvider, chunk, completion, usage_chunk
from tests.fixtures.service import Start
from tests.ledger_helpers import (
    add_plans,
    budget_alerts,
    call_of,
    check_accounts,
    expire,
    ledger_of,
    principal_of,
    usd,
    watching,
)
from tests.support import PATIENCE_SECONDS, Service, User, chat, error_of, write_policy

CHAT = "/v1/chat/completions"
# One more where several may serve.
PROCESSES = 1 + wiring.MANY_PROCESSES
# A chat model with retries, and a fallback at the same price.
MODELS = """
[models."offline/again"]
provider = "offline"
name = "again"
kind = "chat"
input_usd_per_million_tokens = 0.25
cache_write_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = 2.00
max_output_tokens = 64
max_input_tokens = 2000
prices_checked = 2026-11-01
attempts = 3
base_delay_seconds = 0.001
fallbacks = ["offline/echo"]
"""


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


class Billing:
    """Answers at a part of the maximum cost, and counts what it billed."""

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.billed = 0

    async def __call__(self, request: ProviderRequest) -> Reply:
        request.sent = True
        await asyncio.sleep(0.001)
        most = pricing.max_usage(request.model, request.body)
        usage = Usage(most.input_tokens // self.parts, most.output_tokens // self.parts)
        self.billed += pricing.cost(request.model.price, usage)
        return Reply(completion("fine"), usage)


async def serve(
    start: Start, policy_dir: Path, budget: int, more: str = ""
) -> tuple[list[Service], User]:
    """As many processes as allowed, and a user with `budget` nano-dollars a day."""
    write_policy(policy_dir, MODELS)
    limits = f"requests_per_minute = 60000, daily_budget_usd = {usd(budget)}"
    add_plans(policy_dir, f"capped = {{{', '.join(filter(None, (limits, more)))}}}")
    services = [await start() for _ in range(PROCESSES)]
    return services, await services[0].create_user("capped")


async def burst(services: Sequence[Service], user: User, calls: int) -> Counter[tuple[int, str]]:
    """Status and code of so many calls at once."""
    clients = [service.client(user) for service in services]
    asked = (clients[n % len(clients)].post(CHAT, json=chat()) for n in range(calls))
    answers = await asyncio.gather(*asked)
    return Counter(
        (answer.status_code, "" if answer.is_success else error_of(answer)[1]) for answer in answers
    )


async def test_a_cap_that_pays_for_37_calls_lets_37_of_500_through(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    services, user = await serve(start, policy_dir, 37 * MAX_COST)
    scripted.on_answer = billing = Billing(1)
    with watching({f"user:{user.id}": 37 * MAX_COST}) as above:
        answers = await burst(services, user, 500)
    assert above == []
    assert answers == {(200, ""): 37, (402, "budget_exceeded"): 463}
    assert len(scripted.asked) == 37
    settled = [row.cost_nano_usd for row in await services[0].rows(attempts)]
    assert sum(settled) == billing.billed == 37 * MAX_COST
    await check_accounts(services[0])
    assert sorted(
        percent for _, percent in await budget_alerts(services[0], f"user:{user.id}")
    ) == [*(50, 80, 100)]


async def test_cheap_calls_are_refused_only_within_one_maximum_cost_of_the_cap(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    services, user = await serve(start, policy_dir, 3 * MAX_COST)
    scripted.on_answer = billing = Billing(10)
    with watching({f"user:{user.id}": 3 * MAX_COST}) as above:
        answers = await burst(services, user, 60)
    assert above == []
    assert set(answers) == {(200, ""), (402, "budget_exceeded")}
    assert 2 * MAX_COST < billing.billed <= 3 * MAX_COST
    sums = await check_accounts(services[0])
    assert {pair for (name, _), pair in sums.items() if name == f"user:{user.id}"} == {
        (billing.billed, 0)
    }


class Step(NamedTuple):
    """A call: what its provider does, how long it goes on, and how much time lies before it.

    Its task is cancelled after so many `turns` of the event loop, unless that is None.
    """

    process: int
    user: int
    does: str
    streams: bool
    parts: int
    model: str
    pause: int
    turns: int | None


DOES = ("answers", "fails", "is busy", "refuses", "is not reached", "hangs", "bills", "dies")
steps = st.builds(
    Step,
    st.integers(0, PROCESSES - 1),
    st.integers(0, 1),
    st.sampled_from(DOES),
    st.booleans(),
    st.integers(1, 10),
    st.sampled_from(["offline/again", "offline/again", "offline/echo"]),
    st.integers(0, 8),
    st.one_of(st.none(), st.integers(0, 60)),
)
FAILURES: dict[str, dict[str, Any]] = {
    "fails": {"status": 500},
    "is busy": {"status": 429, "billed": False},
    "refuses": {"status": 400, "billed": False},
    "is not reached": {},
    "bills": {"status": 502, "usage": Usage(3, 5)},
}


class Chance:
    """A provider that does with each call what its step says: `seed` is its number."""

    def __init__(self, schedule: Sequence[Step]) -> None:
        self.schedule = schedule

    async def answer(self, request: ProviderRequest) -> Reply:
        step = self.schedule[request.body["seed"]]
        request.sent = step.does != "is not reached"
        await asyncio.sleep(0)
        if step.does in FAILURES:
            raise ProviderFailure("it failed", **FAILURES[step.does])
        if step.does == "hangs":
            await asyncio.Event().wait()
        most = pricing.max_usage(request.model, request.body)
        usage = Usage(most.input_tokens // step.parts, most.output_tokens // step.parts)
        return Reply(completion("fine"), usage)

    async def stream(self, request: ProviderRequest) -> Chunks:
        step = self.schedule[request.body["seed"]]
        if step.parts % 2:
            request.sent = True
            yield [chunk("fi")]
        reply = await self.answer(request)
        yield [chunk("ne", "stop")]
        if reply.usage and step.parts != 4:  # Some forget to tell.
            yield [usage_chunk(reply.usage)]


async def take(pipeline: Pipeline, user: User, step: Step, number: int) -> None:
    """One call, as far as its step says."""
    call = call_of(principal_of(user, "capped"), step.model, seconds=0.05)
    call.body["seed"] = number
    with suppress(ServiceError, TimeoutError, ProviderFailure):
        if step.does == "dies":
            await pipeline.begin(call)
        elif step.streams:
            generation, _, chunks = await pipeline.stream(call)
            try:
                async with generation.deadline.scope():
                    async for _ in chunks:
                        await asyncio.sleep(0)
            finally:
                await chunks.aclose()
        else:
            await pipeline.generate(call)


async def play(
    services: Sequence[Service], users: Sequence[User], schedule: Sequence[Step]
) -> None:
    """All steps, in parallel."""
    tasks = []
    for number, step in enumerate(schedule):
        for _ in range(step.pause):
            await asyncio.sleep(0)
        pipeline: Pipeline = services[step.process].engine.pipeline
        tasks.append(asyncio.create_task(take(pipeline, users[step.user], step, number)))
        if step.turns is not None:
            asyncio.get_running_loop().call_later(step.turns / 2000, tasks[-1].cancel)
    _, stuck = await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)
    assert not stuck
    for task in tasks:
        assert task.cancelled() or task.exception() is None
    for service in services:
        await service.engine.in_flight.drain()


async def sweep(service: Service, scripted: FakeProvider) -> None:
    """As another process does when the leases of those that died have run out."""
    await expire(service)
    policy: Policy = service.engine.policy
    sweeper = Sweeper(service.database, ledger_of(service), policy, {"offline": scripted})
    await sweeper.sweep()


@pytest.fixture
async def raced(
    scripted: FakeProvider, start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Service], list[User]]:
    """Services that lose no time, two users, and caps for each and for both."""
    monkeypatch.setattr("gateway.circuit_breaker.breaker.FIRST_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr("gateway.circuit_breaker.breaker.MAX_PAUSE_SECONDS", 0.002)
    monkeypatch.setattr("gateway.circuit_breaker.breaker.BELIEVED_SECONDS", 0.0)
    monkeypatch.setattr("gateway.pipeline.retry.COST", 0)
    monkeypatch.setattr("gateway.ledger.ledger.POLL_SECONDS", 0.01)
    together = f"total_daily_budget_usd = {usd(5 * MAX_COST)}"
    services, user = await serve(start, policy_dir, 3 * MAX_COST, together)
    return services, [user, await services[0].create_user("capped")]


@given(schedule=st.lists(steps, min_size=2, max_size=12))
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_spent_and_reserved_never_pass_a_cap(
    schedule: list[Step], raced: tuple[list[Service], list[User]], scripted: FakeProvider
) -> None:
    """With calls that fail, are tried again, fall back, hang, are left, and processes that die."""
    services, users = raced
    for table in (attempts, predictions, accounts, alerts):
        await services[0].write(delete(table))
    chance = Chance(schedule)
    scripted.on_answer, scripted.on_stream = chance.answer, chance.stream
    caps = {"plan:capped": 5 * MAX_COST, **{f"user:{user.id}": 3 * MAX_COST for user in users}}
    with watching(caps) as above:
        await play(services, users, schedule)
        await sweep(services[-1], scripted)
    assert above == []
    rows = await services[0].rows(attempts)
    assert {row.state for row in rows} <= {"settled", "released", "uncertain"}
    sums = await check_accounts(services[0])
    assert all(reserved == 0 for _, reserved in sums.values())
    costs: Counter[str] = Counter()
    for row in rows:
        costs[row.prediction_id] += row.cost_nano_usd
    for row in await services[0].rows(predictions):
        assert (row.status == "running", row.cost_nano_usd) == (False, costs[row.id])
