"""Budgets: spent plus reserved never exceeds a cap, and the owner gets each alert once."""

import asyncio
import datetime as dt
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import BigInteger, literal

from gateway import pricing
from gateway.accounts.principals import KeyLimits
from gateway.db.tables import attempts, utc_now
from gateway.errors import BudgetExceeded, RateLimited, RequestTooLarge
from gateway.ledger import transaction
from gateway.ledger.budget import Balances, Blocked, caps_of, periods, require_room
from gateway.ledger.ledger import Ledger
from gateway.pipeline.generation import Generation
from gateway.pipeline.pipeline import Pipeline
from gateway.policy import Cap, Policy
from gateway.providers.base import Deadline, ProviderRequest, Reply
from tests.fake_provider import COST, MAX_COST, FakeProvider, completion, say_fine
from tests.fixtures.service import Start
from tests.ledger_helpers import (
    UNIT,
    add_plans,
    begin,
    budget_alerts,
    call_of,
    capped,
    check_accounts,
    end,
    generation_of,
    ledger_of,
    principal_of,
    usd,
)
from tests.support import Service, User, chat, error_of, eventually, unique

CHAT = "/v1/chat/completions"
DAY = "2026-11-24"
TODAY = utc_now().date().isoformat()
PERCENTS = (50, 80, 100)
NAMES = ("service", "plan:free", "user:u", "key:k")

sums = st.integers(0, 12)
limits = st.one_of(st.none(), st.integers(0, 12))


def caps_with(*limits: tuple[int | None, int | None]) -> list[Cap]:
    """A cap for each pair of a day's and a month's limit."""
    return [Cap(name, *pair) for name, pair in zip(NAMES, limits, strict=False)]


def amounts(balances: Balances) -> dict[tuple[str, str], tuple[int, int]]:
    return {key: (account.spent, account.reserved) for key, account in balances.changes()}


# The balances of a transaction.


@given(st.lists(st.tuples(limits, limits, sums, sums, sums, sums), min_size=1, max_size=4), sums)
def test_a_reservation_takes_from_every_account_or_from_none(
    places: list[tuple[int | None, int | None, int, int, int, int]], bound: int
) -> None:
    caps = caps_with(*((day, month) for day, month, *_ in places))
    held, rooms, spendings = {}, [], []
    for cap, (_, _, *pairs) in zip(caps, places, strict=True):
        halves = pairs[:2], pairs[2:]
        for most, period, pair in zip(cap.on(DAY), periods(DAY), halves, strict=True):
            held[cap.account, period] = pair[0], pair[1]
            if most is not None:
                rooms.append(most - sum(pair))
                spendings.append(most - pair[0])
    balances = Balances(held, PERCENTS)
    if min(spendings, default=bound) < bound:
        with pytest.raises(BudgetExceeded):
            balances.reserve(caps, DAY, bound)
        assert len(balances.alerts) == 1
    elif min(rooms, default=bound) < bound:
        with pytest.raises(Blocked):
            balances.reserve(caps, DAY, bound)
    else:
        balances.reserve(caps, DAY, bound)
        taken = {key: (spent, reserved + bound) for key, (spent, reserved) in held.items()}
        assert amounts(balances) == (taken if bound else {})
        return
    assert amounts(balances) == {}


@given(st.lists(st.integers(-1, 4)), st.integers(1, 20), st.integers(1, 20))
def test_an_alert_is_raised_for_each_percentage_of_a_cap_that_is_spent(
    costs: list[int], day_cap: int, month_cap: int
) -> None:
    """Also when a settlement is corrected downwards and the same part is spent again."""
    caps = [Cap("service", day_cap, month_cap)]
    spent = peak = 0
    seen: set[str] = set()
    for cost in costs:
        before = {("service", period): (spent, 0) for period in periods(DAY)}
        balances = Balances(before, PERCENTS)
        balances.change(["service"], DAY, reserved=0, spent=cost)
        spent += cost
        peak = max(peak, spent)
        balances.collect_alerts(caps, DAY)
        seen |= set(balances.alerts)
    assert seen == {
        f"budget:service:{period}:{percent}"
        for period, cap in zip(periods(DAY), (day_cap, month_cap), strict=True)
        for percent in PERCENTS
        if peak * 100 >= percent * cap
    }


def test_a_cap_of_zero_raises_no_alert() -> None:
    balances = Balances({}, PERCENTS)
    balances.change(["service"], DAY, reserved=0, spent=0)
    balances.collect_alerts([Cap("service", 0, None)], DAY)
    assert balances.alerts == {}
    with pytest.raises(BudgetExceeded):
        balances.reserve([Cap("service", 0, None)], DAY, 1)


@pytest.mark.parametrize(
    ("account", "limits", "words"),
    [
        ("service", (5, None), "the service's budget for the day has 0.000000000 USD left"),
        ("plan:free", (None, 5), "the service's budget for the month has"),
        ("user:u", (5, None), "your budget for the day has"),
        ("key:k", (None, 5), "this API key's budget for the month has"),
    ],
)
def test_a_refusal_says_whose_budget_it_is_and_for_how_long(
    account: str, limits: tuple[int | None, int | None], words: str
) -> None:
    spent = {(account, period): (7, 0) for period in periods(DAY)}
    with pytest.raises(BudgetExceeded, match=words) as refused:
        Balances(spent, PERCENTS).reserve([Cap(account, *limits)], DAY, 1)
    assert "can cost up to 0.000000001 USD" in refused.value.message
    assert refused.value.headers == {"x-should-retry": "false"}


@given(limits, limits, sums)
def test_a_maximum_cost_above_a_cap_is_refused(
    day: int | None, month: int | None, bound: int
) -> None:
    caps = caps_with((None, None), (day, month))
    if bound > min(most for most in (day, month, bound) if most is not None):
        with pytest.raises(RequestTooLarge):
            require_room(caps, bound)
    else:
        require_room(caps, bound)


async def test_a_call_counts_against_service_plan_user_and_the_limits_of_its_key(
    service: Service, user: User
) -> None:
    policy: Policy = service.engine.policy
    limited = principal_of(user, "many", KeyLimits(None, None, None, 7, 9))
    assert [cap.account for cap in caps_of(policy, principal_of(user, "many"))] == [
        "service",
        "plan:many",
        f"user:{user.id}",
    ]
    assert caps_of(policy, limited)[3:] == (Cap(f"key:key_{user.id}", 7, 9),)


# The ledger: what the database holds.


@pytest.mark.parametrize("kind", ["service", "plan", "user", "key"])
@pytest.mark.parametrize("limits", [(10, None), (None, 10)], ids=["day", "month"])
async def test_every_cap_is_kept(
    service: Service, user: User, kind: str, limits: tuple[int | None, int | None]
) -> None:
    ledger, principal = ledger_of(service), principal_of(user, limits=KeyLimits())
    caps = capped(principal, *limits, kind)
    await end(ledger, await begin(ledger, generation_of(service, principal, 6, caps)), 6)
    with pytest.raises(BudgetExceeded):
        await begin(ledger, generation_of(service, principal, 5, caps))
    await begin(ledger, generation_of(service, principal, 4, caps))
    assert await check_accounts(service) == {
        (cap.account, period): (6 * UNIT, 4 * UNIT) for cap in caps for period in periods(TODAY)
    }


async def test_the_owner_gets_an_alert_once(service: Service, user: User) -> None:
    """Of each part of a cap; of all of it by a refusal at the latest; never again."""
    ledger, principal = ledger_of(service), principal_of(user)

    async def spend(bound: int, units: int | None) -> Generation:
        caps = capped(principal, 10)
        opened = await begin(ledger, generation_of(service, principal, bound, caps))
        await end(ledger, opened, units)
        return opened

    async def percents() -> list[int]:
        seen = await budget_alerts(service, f"user:{user.id}")
        assert {period for period, _ in seen} <= {TODAY}
        return sorted(percent for _, percent in seen)

    await spend(4, 4)
    assert await percents() == []
    uncertain = await spend(3, None)
    assert await percents() == [50]
    with pytest.raises(BudgetExceeded):
        await spend(4, 4)
    assert await percents() == [50, 100]
    await end(ledger, uncertain, 0)
    await spend(5, 5)
    assert await percents() == [50, 80, 100]
    with pytest.raises(BudgetExceeded):
        await spend(2, 2)
    assert await percents() == [50, 80, 100]


async def test_what_ends_twice_in_one_transaction_ends_as_in_two(
    service: Service, user: User
) -> None:
    """As in a process that was frozen: it sweeps at the moment when the answer comes."""
    ledger = ledger_of(service)
    opened = await begin(ledger, generation_of(service, principal_of(user), 5))
    await asyncio.gather(end(ledger, opened), end(ledger, opened, 2))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("settled", 2 * UNIT)
    assert prediction.cost_nano_usd == 2 * UNIT
    await check_accounts(service)


async def test_a_change_of_plan_keeps_what_was_spent(service: Service, user: User) -> None:
    ledger = ledger_of(service)
    before, after = principal_of(user, "one"), principal_of(user, "few")
    opened = await begin(ledger, generation_of(service, before, 5, capped(before, 9)))
    runs_on = await begin(ledger, generation_of(service, before, 2, capped(before, 9)))
    await end(ledger, opened, 5)
    with pytest.raises(BudgetExceeded):
        await begin(ledger, generation_of(service, after, 5, capped(after, 9)))
    await begin(ledger, generation_of(service, after, 2, capped(after, 9)))
    await end(ledger, runs_on, 2)
    sums = await check_accounts(service)
    assert sums["plan:one", TODAY] == (7 * UNIT, 0)
    assert sums["plan:few", TODAY] == (0, 2 * UNIT)
    assert sums[f"user:{user.id}", TODAY] == (7 * UNIT, 2 * UNIT)


async def test_a_lowered_cap_leaves_nothing_and_running_calls_finish(
    service: Service, user: User
) -> None:
    ledger, principal = ledger_of(service), principal_of(user)
    wide, narrow = capped(principal, 9), capped(principal, 2)
    opened = await begin(ledger, generation_of(service, principal, 3, wide))
    runs_on = await begin(ledger, generation_of(service, principal, 4, wide))
    await end(ledger, opened, 3)
    with pytest.raises(BudgetExceeded, match=r"has 0\.000000000 USD left"):
        await begin(ledger, generation_of(service, principal, 1, narrow))
    await end(ledger, runs_on, 4)
    assert (await check_accounts(service))[f"user:{user.id}", TODAY] == (7 * UNIT, 0)


async def test_the_period_is_fixed_at_the_reservation(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the database's clock: what is reserved in the last moment of a month counts there."""
    principal, name = principal_of(user), f"user:{user.id}"
    monkeypatch.setattr(
        transaction, "_read_statements", transaction._read_statements.__wrapped__
    )  # not built once
    midnight = dt.datetime(2026, 12, 1, tzinfo=dt.UTC)

    async def begin_at(moment: dt.datetime, bound: int) -> Generation:
        clock = literal(int(moment.timestamp() * 10**6), BigInteger)
        monkeypatch.setattr(type(service.database), "microseconds", lambda: clock)
        generation = generation_of(service, principal, bound, capped(principal, 5, 5))
        return await begin(ledger_of(service), generation)

    opened = await begin_at(midnight - dt.timedelta(microseconds=1), 5)
    await begin_at(midnight, 4)
    await end(ledger_of(service), opened, 3)
    sums = await check_accounts(service)
    assert {period: pair for (account, period), pair in sums.items() if account == name} == {
        "2026-11-30": (3 * UNIT, 0),
        "2026-11": (3 * UNIT, 0),
        "2026-12-01": (0, 4 * UNIT),
        "2026-12": (0, 4 * UNIT),
    }


async def _waits(ledger: Ledger) -> None:
    """Wait until a call waits for reserved budget."""

    async def waits() -> bool:
        return ledger._waiting > 0

    await eventually(waits)


async def test_a_settlement_in_another_process_frees_budget(service: Service, user: User) -> None:
    here, there, principal = ledger_of(service), ledger_of(service), principal_of(user)
    first = await begin(there, generation_of(service, principal, 9, capped(principal, 10)))
    waiting = generation_of(service, principal, 9, capped(principal, 10))
    opening = asyncio.create_task(begin(here, waiting))
    await _waits(here)
    await end(there, first, 1)
    assert await opening is waiting


async def test_a_cancelled_waiter_reserves_nothing(service: Service, user: User) -> None:
    ledger, principal = ledger_of(service), principal_of(user)
    first = await begin(ledger, generation_of(service, principal, 9, capped(principal, 10)))
    leaving = asyncio.create_task(
        begin(ledger, generation_of(service, principal, 9, capped(principal, 10)))
    )
    await _waits(ledger)
    leaving.cancel()
    await asyncio.wait([leaving])
    await end(ledger, first, 1)
    assert (await check_accounts(service))[f"user:{user.id}", TODAY] == (UNIT, 0)


async def test_no_more_wait_than_can(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.ledger.MAX_WAITING", 2)
    ledger, principal = ledger_of(service), principal_of(user)
    first = await begin(ledger, generation_of(service, principal, 9, capped(principal, 100)))
    await end(ledger, first, 5)
    holding = await begin(ledger, generation_of(service, principal, 9, capped(principal, 14)))
    more = [generation_of(service, principal, 9, capped(principal, 14), 0.2) for _ in range(3)]
    ends = await asyncio.gather(*(begin(ledger, each) for each in more), return_exceptions=True)
    assert sorted(type(each).__name__ for each in ends) == [
        *["RateLimited"],
        *["TimeoutError"] * 2,
    ]
    (refused,) = [each for each in ends if isinstance(each, RateLimited)]
    assert (refused.param, refused.headers) == ("concurrency", {"Retry-After": "1"})
    await end(ledger, holding, 9)


# The service: what clients see.


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


async def use_all(request: ProviderRequest) -> Reply:
    """An answer that costs the maximum."""
    request.sent = True
    return Reply(completion("fine"), pricing.max_usage(request.model, request.body))


async def client_with(
    start: Start, policy_dir: Path, budget: int, **settings: Any
) -> tuple[Service, User, httpx2.AsyncClient]:
    """A user with a budget of `budget` nano-dollars a day."""
    budget_usd = f"daily_budget_usd = {usd(budget)}"
    add_plans(policy_dir, f"capped = {{requests_per_minute = 6000, {budget_usd}}}")
    service = await start(**settings)
    user = await service.create_user("capped")
    return service, user, service.client(user)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a call waits for reserved budget."""
    waiting, wait = asyncio.Event(), Ledger._wait

    async def tell(ledger: Ledger, deadline: Deadline, most: int) -> None:
        waiting.set()
        await wait(ledger, deadline, most)

    monkeypatch.setattr(Ledger, "_wait", tell)
    return waiting


@pytest.mark.parametrize("stream", [False, True])
async def test_what_a_budget_does_not_pay_for_is_402_and_not_to_be_tried_again(
    scripted: FakeProvider, start: Start, policy_dir: Path, stream: bool
) -> None:
    service, _, client = await client_with(
        start, policy_dir, MAX_COST + COST - 1, metrics_token=unique("metrics")
    )
    assert (await client.post(CHAT, json=chat())).status_code == 200
    before = await service.metric("limit_refusals_total", limit="budget")
    refused = await client.post(CHAT, json=chat(stream=stream))
    assert error_of(refused) == (402, "budget_exceeded", None)
    assert refused.headers["x-should-retry"] == "false"
    assert "Retry-After" not in refused.headers
    assert len(scripted.asked) == 1
    assert await service.rows_count() == 2
    assert await service.metric("limit_refusals_total", limit="budget") == before + 1
    assert (await client.get("/v1/usage")).json()["day"] == {
        "spent_nano_usd": COST,
        "reserved_nano_usd": 0,
        "cap_nano_usd": MAX_COST + COST - 1,
    }


async def test_a_maximum_cost_above_a_cap_is_request_too_large(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    service, _, client = await client_with(start, policy_dir, MAX_COST - 1)
    assert error_of(await client.post(CHAT, json=chat())) == (400, "request_too_large", None)
    assert await service.rows_count() == 0
    fits = await client.post(CHAT, json=chat(max_tokens=63))
    assert fits.status_code == 200


@pytest.mark.parametrize(("cost", "status"), [(COST, 200), (MAX_COST, 402)])
async def test_a_call_waits_for_what_others_have_reserved(
    scripted: FakeProvider,
    start: Start,
    policy_dir: Path,
    waits: asyncio.Event,
    cost: int,
    status: int,
) -> None:
    """It passes if they cost less, and is refused if not."""
    _, _, client = await client_with(start, policy_dir, MAX_COST + COST)

    async def wait(request: ProviderRequest) -> Reply:
        await waits.wait()
        return await (say_fine if cost == COST else use_all)(request)

    scripted.on_answer = wait
    answers = await asyncio.gather(*(client.post(CHAT, json=chat()) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, status]


async def test_a_call_waits_no_longer_than_its_deadline(
    scripted: FakeProvider, start: Start, policy_dir: Path, waits: asyncio.Event
) -> None:
    service, user, client = await client_with(
        start, policy_dir, MAX_COST + COST, request_deadline_seconds=0.2
    )
    pipeline: Pipeline = service.engine.pipeline
    await pipeline.begin(call_of(principal_of(user, "capped")))
    assert error_of(await client.post(CHAT, json=chat())) == (504, "deadline_exceeded", None)
    assert waits.is_set()
    assert scripted.asked == []
    assert len(await service.rows(attempts)) == 1
