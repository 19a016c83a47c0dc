"""The sweeper: nothing stays open, and work that outlived its process is found again."""

import asyncio
import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import pytest
from sqlalchemy import update

from gateway.accounts.principals import Principal
from gateway.db.tables import attempts, utc_now
from gateway.errors import DatabaseUnavailable
from gateway.ledger.ledger import Ledger
from gateway.ledger.sweeper import LOST_AFTER, MAX_MS, Sweeper
from gateway.pipeline.generation import AttemptResult, Generation
from gateway.policy import Policy
from gateway.providers.base import (
    BadAnswer,
    Outcome,
    ProviderFailure,
    ProviderRequest,
    Reply,
    Usage,
)
from tests.fake_provider import COST, USAGE, FakeProvider, completion, hang
from tests.fixtures.service import Start
from tests.ledger_helpers import (
    UNIT,
    add_plans,
    attempt_of,
    begin,
    budget_alerts,
    capped,
    check_accounts,
    end,
    expire,
    generation_of,
    ledger_of,
    principal_of,
    usd,
)
from tests.support import Service, User, chat, error_of, eventually

MAX_COST = 6
REPLY = Reply(completion("late"), USAGE)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


@pytest.fixture
async def service(
    scripted: FakeProvider, start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    """A service whose own sweeper does not run, and whose users may spend ten units."""
    monkeypatch.setattr("gateway.ledger.sweeper.POLL_SECONDS", 3600)
    budget = f"requests_per_minute = 60, daily_budget_usd = {usd(10 * UNIT)}"
    add_plans(policy_dir, f"capped = {{{budget}}}")
    return await start()


@pytest.fixture
def ledger(service: Service) -> Ledger:
    """The one of a process that dies."""
    return ledger_of(service)


@pytest.fixture
def sweeper(service: Service, scripted: FakeProvider) -> Sweeper:
    return sweeper_of(service, scripted)


def sweeper_of(service: Service, scripted: FakeProvider, *, keep_content: bool = True) -> Sweeper:
    policy: Policy = service.engine.policy
    ledger = Ledger(service.database, policy, keep_content=keep_content)
    return Sweeper(service.database, ledger, policy, {"offline": scripted})


@pytest.fixture
def principal(user: User) -> Principal:
    return principal_of(user, "capped")


@pytest.fixture
async def left(service: Service, ledger: Ledger, principal: Principal) -> Generation:
    """A generation whose process died."""
    return await begin(ledger, generation_of(service, principal, MAX_COST))


@pytest.fixture
async def remote(ledger: Ledger, left: Generation) -> Generation:
    """One that goes on at the provider."""
    left.current.request.remote_id = "r1"
    await ledger.renew(left, left.current)
    return left


async def test_an_abandoned_attempt_is_settled_at_its_maximum(
    service: Service, sweeper: Sweeper, left: Generation, user: User
) -> None:
    await expire(service)
    await sweeper.sweep()
    assert await service.books() == ("uncertain", "cancelled")
    prediction = await service.prediction()
    assert (prediction.status, prediction.error["code"]) == ("failed", "outcome_unknown")
    assert prediction.cost_nano_usd == MAX_COST * UNIT
    today = utc_now().date().isoformat()
    assert (await check_accounts(service))[f"user:{user.id}", today] == (MAX_COST * UNIT, 0)
    assert await budget_alerts(service, f"user:{user.id}") == [(today, 50)]


async def test_what_ended_between_two_attempts_has_failed(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    """As a process does that dies in the pause before it tries again."""
    failed = AttemptResult("failed", Outcome.PROVIDER_ERROR, USAGE)
    left.count(failed)
    await ledger.settle(left, left.current, failed, last=False)
    await sweeper.sweep()
    assert (await service.prediction()).status == "running"
    await expire(service)
    await sweeper.sweep()
    prediction, attempt = await service.prediction(), await service.attempt()
    assert (prediction.status, prediction.error["code"]) == ("failed", "outcome_unknown")
    assert attempt.state == "settled"
    assert prediction.cost_nano_usd == attempt.cost_nano_usd > 0
    await check_accounts(service)


async def test_the_clock_of_the_database_decides_what_is_over(
    service: Service,
    sweeper: Sweeper,
    ledger: Ledger,
    left: Generation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of the process may be an hour ahead, while another one is about to try again."""
    failed = AttemptResult("failed", Outcome.PROVIDER_ERROR, USAGE)
    await ledger.settle(left, left.current, failed, last=False)
    ahead = utc_now() + dt.timedelta(hours=1)
    monkeypatch.setattr("gateway.ledger.sweeper.utc_now", lambda: ahead)
    await sweeper.sweep()
    assert (await service.prediction()).status == "running"


async def test_what_ended_between_two_attempts_is_found_after_a_long_outage(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    """Its process was the last one for a month."""
    failed = AttemptResult("failed", Outcome.PROVIDER_ERROR, USAGE)
    left.count(failed)
    await ledger.settle(left, left.current, failed, last=False)
    opened = utc_now() - dt.timedelta(days=30)
    lease = {"opened_at": opened, "lease_until": opened + dt.timedelta(minutes=1)}
    await service.write(update(attempts).values(**lease))
    await sweeper.sweep()
    assert (await service.prediction()).status == "failed"


async def test_what_has_its_lease_is_left_alone(
    service: Service, scripted: FakeProvider, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    sought: list[ProviderRequest] = []

    async def find(request: ProviderRequest) -> Reply:
        sought.append(request)
        return REPLY

    scripted.on_fetch_result = find
    before = await service.attempt()
    await sweeper.sweep()
    assert await service.attempt() == before
    left.current.request.remote_id = "r1"
    await ledger.renew(left, left.current)
    before = await service.attempt()
    await sweeper.sweep()
    assert (await service.attempt(), sought) == (before, [])


async def test_a_lease_that_is_renewed_at_the_last_moment_counts(
    service: Service, scripted: FakeProvider, sweeper: Sweeper, ledger: Ledger, remote: Generation
) -> None:
    async def renew(_: ProviderRequest) -> Reply:
        await ledger.renew(remote, remote.current)
        return REPLY

    await expire(service)
    scripted.on_fetch_result = renew
    await sweeper.sweep()
    assert (await service.attempt()).state == "sent"
    assert (await service.prediction()).status == "running"


async def test_what_has_ended_has_no_lease_to_renew(
    service: Service, ledger: Ledger, remote: Generation
) -> None:
    await end(ledger, remote, 2)
    before = await service.attempt()
    await ledger.renew(remote, remote.current)
    assert await service.attempt() == before
    assert before.state == "settled"


async def test_several_replicas_may_sweep_at_once(
    service: Service, scripted: FakeProvider, remote: Generation
) -> None:
    await expire(service)
    await asyncio.gather(*(sweeper_of(service, scripted).sweep() for _ in range(5)))
    assert (await service.books())[0] == "settled"
    await check_accounts(service)


async def test_what_is_settled_is_counted_once(
    service: Service, scripted: FakeProvider, ledger: Ledger, remote: Generation
) -> None:
    """Any replica settles it, and its own process settles it as well."""
    before = await service.settled()
    await expire(service)
    await asyncio.gather(*(sweeper_of(service, scripted).sweep() for _ in range(5)))
    await end(ledger, remote, 2)
    counted = await service.settled() - before
    assert counted == Counter(cost=COST, input=USAGE.input_tokens, output=USAGE.output_tokens)


@pytest.mark.parametrize(("units", "cost"), [(2, MAX_COST), (MAX_COST + 3, MAX_COST + 3)])
async def test_a_correction_counts_what_it_adds(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation, units: int, cost: int
) -> None:
    """A counter takes nothing back."""
    before = await service.settled()
    await expire(service)
    await sweeper.sweep()
    assert await service.settled() - before == Counter(cost=MAX_COST * UNIT)
    await end(ledger, left, units)
    assert await service.settled() - before == Counter(cost=cost * UNIT, output=units)


async def test_a_late_settlement_corrects_an_uncertain_one_once(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    await expire(service)
    await sweeper.sweep()
    for units in (2, 3, None):
        await end(ledger, left, units)
        await sweeper.sweep()
        assert await service.books() == ("settled", "cancelled")
        assert (await service.prediction()).cost_nano_usd == 2 * UNIT
        sums = await check_accounts(service)
        assert set(sums.values()) == {(2 * UNIT, 0)}


async def test_an_uncertain_one_that_turns_out_not_to_be_billed_is_given_back(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    await expire(service)
    await sweeper.sweep()
    left.current.request.sent = False
    await end(ledger, left)
    assert await service.books() == ("released", "cancelled")
    assert await check_accounts(service) == {}


async def test_what_was_given_back_stays_so(
    service: Service, ledger: Ledger, left: Generation
) -> None:
    """A later settlement is an error, and changes no account."""
    left.current.request.sent = False
    await end(ledger, left)
    await end(ledger, left, 2)
    assert (await service.attempt()).state == "released"
    assert await check_accounts(service) == {}


async def test_the_attempts_before_it_are_paid_as_well(
    service: Service, sweeper: Sweeper, ledger: Ledger, left: Generation
) -> None:
    failed = AttemptResult("failed", Outcome.PROVIDER_ERROR, Usage(output_tokens=3))
    left.count(failed)
    await ledger.settle(left, left.current, failed, last=False)
    first, left.attempt = left.current, attempt_of(left, left.model, 4)
    left.attempt.number = first.number + 1
    await begin(ledger, left)
    await expire(service)
    await sweeper.sweep()
    assert [row.state for row in await service.rows(attempts)] == ["settled", "uncertain"]
    assert (await service.prediction()).cost_nano_usd == 7 * UNIT
    # The process was not dead: the late truth corrects the sum.
    await end(ledger, left, 1)
    assert [row.state for row in await service.rows(attempts)] == ["settled", "settled"]
    assert (await service.prediction()).cost_nano_usd == 4 * UNIT
    await check_accounts(service)


@pytest.mark.parametrize("keeps", [True, False], ids=["stored", "not stored"])
async def test_work_that_outlived_its_process_is_adopted(
    service: Service, scripted: FakeProvider, remote: Generation, keeps: bool
) -> None:
    sought: list[str | None] = []

    async def find(request: ProviderRequest) -> Reply:
        sought.append(request.remote_id)
        return REPLY

    scripted.on_fetch_result = find
    await expire(service)
    await sweeper_of(service, scripted, keep_content=keeps).sweep()
    attempt, prediction = await service.attempt(), await service.prediction()
    assert sought == ["r1"]
    assert (attempt.state, attempt.cost_nano_usd, attempt.remote_id) == ("settled", COST, "r1")
    assert (prediction.status, prediction.outcome) == ("succeeded", "ok")
    assert (prediction.cost_nano_usd, prediction.served_model) == (COST, "offline/echo")
    assert (prediction.input_tokens, prediction.output_tokens) == tuple(USAGE[:2])
    assert prediction.output == (completion("late") if keeps else None)
    await check_accounts(service)


async def test_an_empty_answer_is_adopted_as_one(
    service: Service, scripted: FakeProvider, sweeper: Sweeper, remote: Generation
) -> None:
    async def find(_: ProviderRequest) -> Reply:
        return Reply(None, None)

    scripted.on_fetch_result = find
    await expire(service)
    await sweeper.sweep()
    assert await service.books() == ("uncertain", "empty")
    assert (await service.prediction()).status == "succeeded"


def finds(met: Exception | None) -> Any:
    """A provider where the work is not to be found, or still runs."""

    async def find(_: ProviderRequest) -> None:
        if met is not None:
            raise met

    return find


NOT_NOW = [
    None,
    ProviderFailure("no connection"),
    ProviderFailure("busy", status=429),
    ProviderFailure("broken", status=502),
    RuntimeError("a bug in the adapter"),
]
ENDED = [
    (BadAnswer("it failed"), "uncertain", MAX_COST * UNIT),
    (BadAnswer("it failed", usage=USAGE), "settled", COST),
    (BadAnswer("it was cancelled", usage=Usage()), "settled", 0),
    (ProviderFailure("never heard of it", status=404), "uncertain", MAX_COST * UNIT),
]


@pytest.mark.parametrize("met", NOT_NOW, ids=str)
async def test_what_still_runs_or_cannot_be_asked_for_is_asked_for_again(
    service: Service,
    scripted: FakeProvider,
    sweeper: Sweeper,
    remote: Generation,
    met: Exception | None,
) -> None:
    await expire(service)
    scripted.on_fetch_result = finds(met)
    await sweeper.sweep()
    attempt = await service.attempt()
    assert attempt.state == "sent"
    assert attempt.lease_until > utc_now()
    await expire(service)
    scripted.on_fetch_result = finds_reply
    await sweeper.sweep()
    assert (await service.books())[0] == "settled"


async def finds_reply(_: ProviderRequest) -> Reply:
    return REPLY


async def test_a_provider_that_does_not_answer_is_not_waited_for(
    service: Service,
    scripted: FakeProvider,
    sweeper: Sweeper,
    remote: Generation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.ledger.sweeper.FIND_SECONDS", 0.01)
    await expire(service)
    scripted.on_fetch_result = hang
    await sweeper.sweep()
    assert (await service.attempt()).lease_until > utc_now()


@pytest.mark.parametrize(("met", "state", "cost"), ENDED, ids=str)
async def test_what_failed_there_is_settled(
    service: Service,
    scripted: FakeProvider,
    sweeper: Sweeper,
    remote: Generation,
    met: Exception,
    state: str,
    cost: int,
) -> None:
    await expire(service)
    scripted.on_fetch_result = finds(met)
    await sweeper.sweep()
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == (state, cost)
    assert (prediction.status, prediction.cost_nano_usd) == ("failed", cost)
    await check_accounts(service)


async def test_what_is_not_found_for_an_hour_is_given_up(
    service: Service, scripted: FakeProvider, sweeper: Sweeper, remote: Generation
) -> None:
    scripted.on_fetch_result = finds(ProviderFailure("no connection"))
    for age, state in ((LOST_AFTER * 0.9, "sent"), (LOST_AFTER, "uncertain")):
        await service.write(update(attempts).values(opened_at=utc_now() - age))
        await expire(service)
        await sweeper.sweep()
        assert (await service.attempt()).state == state
    assert (await service.books())[0] == "uncertain"


@pytest.mark.parametrize("column", ["model", "provider"])
async def test_what_is_offered_no_more_is_paid_at_its_bound(
    service: Service, sweeper: Sweeper, remote: Generation, column: str
) -> None:
    await service.write(update(attempts).values(**{column: "gone"}))
    await expire(service)
    await sweeper.sweep()
    assert (await service.books())[0] == "uncertain"


async def test_what_was_left_long_ago_is_paid_as_well(
    service: Service, sweeper: Sweeper, left: Generation
) -> None:
    """Its time in milliseconds is more than the column of the latency holds."""
    await service.write(update(attempts).values(opened_at=utc_now() - dt.timedelta(days=26)))
    await expire(service)
    await sweeper.sweep()
    assert await service.books() == ("uncertain", "cancelled")
    assert (await service.prediction()).latency_ms == MAX_MS


async def test_one_that_cannot_be_settled_does_not_keep_the_others_from_it(
    service: Service, scripted: FakeProvider, sweeper: Sweeper, ledger: Ledger, remote: Generation
) -> None:
    broken = await begin(ledger, generation_of(service, remote.call.principal, 1))
    broken.current.request.remote_id = "r2"
    await ledger.renew(broken, broken.current)
    wrong = update(attempts).where(attempts.c.id == broken.current.id).values(price={"none": 1})
    await service.write(wrong)
    await expire(service)
    scripted.on_fetch_result = finds_reply
    await sweeper.sweep()
    states = {row.id: row.state for row in await service.rows(attempts)}
    assert states == {remote.current.id: "settled", broken.current.id: "sent"}
    (event,) = [event for event in service.events if event["level"] == "error"]
    assert event["attempt"] == broken.current.id


async def test_a_plan_may_be_gone(
    service: Service, sweeper: Sweeper, ledger: Ledger, user: User
) -> None:
    principal = principal_of(user, "gone")
    await begin(ledger, generation_of(service, principal, MAX_COST, capped(principal)))
    await expire(service)
    await sweeper.sweep()
    assert (await service.books())[0] == "uncertain"
    await check_accounts(service)


class Gone:
    """Takes a database away; `after` lets it do its work first, and loses the answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, database: Any, *, after: bool) -> None:
        self._patch, self._database, self._after = monkeypatch, database, after
        self._transact = database.transact

    def __enter__(self) -> None:
        self._patch.setattr(self._database, "transact", self._fail)

    def __exit__(self, *_: object) -> None:
        self._patch.setattr(self._database, "transact", self._transact)

    async def _fail(self, *given: Any) -> NoReturn:
        if self._after:
            await self._transact(*given)
        raise DatabaseUnavailable("It is gone.", retry_after=1)


@pytest.mark.parametrize("after", [False, True])
async def test_what_could_not_be_written_is_written_when_the_database_is_back(
    service: Service,
    ledger: Ledger,
    left: Generation,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    gone = Gone(monkeypatch, service.database, after=after)
    with gone:
        with pytest.raises(DatabaseUnavailable):
            await end(ledger, left, 2)
        with pytest.raises(DatabaseUnavailable):
            await ledger.flush()
    assert (await service.attempt()).state == ("settled" if after else "reserved")
    await ledger.flush()
    assert await service.books() == ("settled", "ok")
    assert set((await check_accounts(service)).values()) == {(2 * UNIT, 0)}


async def test_a_settlement_whose_caller_left_is_written(
    service: Service, ledger: Ledger, left: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Gone(monkeypatch, service.database, after=False):
        closing = asyncio.create_task(end(ledger, left, 2))
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await ledger.drain()
    await ledger.flush()
    assert await service.books() == ("settled", "ok")


@pytest.mark.parametrize("after", [False, True])
async def test_a_reservation_whose_answer_was_lost_is_taken_back(
    service: Service,
    ledger: Ledger,
    principal: Principal,
    monkeypatch: pytest.MonkeyPatch,
    after: bool,
) -> None:
    with Gone(monkeypatch, service.database, after=after):
        with pytest.raises(DatabaseUnavailable):
            await begin(ledger, generation_of(service, principal, MAX_COST))
        await ledger.drain()
    await ledger.flush()
    states = [row.state for row in await service.rows(attempts)]
    assert states == (["released"] if after else [])
    assert await check_accounts(service) == {}


async def test_the_service_settles_by_itself_what_it_could_not_write(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.sweeper.POLL_SECONDS", 0.02)
    service = await start()
    client = service.client(await service.create_user())
    gone = Gone(monkeypatch, service.engine.database, after=False)

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        gone.__enter__()
        return REPLY

    scripted.on_answer = answer
    response = await client.post("/v1/chat/completions", json=chat())
    assert error_of(response) == (503, "database_unavailable", None)
    assert not await service.is_settled()
    gone.__exit__()
    await eventually(service.is_settled)
    assert await service.books() == ("settled", "ok")


async def test_a_database_that_goes_between_two_attempts_leaves_nothing_open(
    scripted: FakeProvider, start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.sweeper.POLL_SECONDS", 0.02)
    models = policy_dir / "models.toml"
    text = models.read_text("utf-8").replace("attempts = 1", "attempts = 3")
    models.write_text(text, "utf-8")
    service = await start()
    client = service.client(await service.create_user())
    gone = Gone(monkeypatch, service.engine.database, after=False)

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        gone.__enter__()
        raise ProviderFailure("broken", status=500)

    scripted.on_answer = answer
    response = await client.post("/v1/chat/completions", json=chat())
    assert error_of(response) == (503, "database_unavailable", None)
    gone.__exit__()

    async def has_ended() -> bool:
        return await service.is_settled() and (await service.prediction()).status != "running"

    await eventually(has_ended)
    assert await service.books() == ("uncertain", "provider_error")
    assert (await service.prediction()).error["code"] == "database_unavailable"
    assert len(scripted.asked) == 1
    await check_accounts(service)


async def test_the_service_sweeps_by_itself(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a crash."""
    looks: list[Ledger] = []

    async def crash_once(ledger: Ledger) -> None:
        looks.append(ledger)
        if len(looks) == 1:
            raise RuntimeError("a bug")

    monkeypatch.setattr(Ledger, "flush", crash_once)
    monkeypatch.setattr("gateway.ledger.sweeper.POLL_SECONDS", 0.02)
    service = await start()
    user = await service.create_user()
    await begin(ledger_of(service), generation_of(service, principal_of(user), MAX_COST))
    await expire(service)
    await eventually(service.is_settled)
    assert await service.books() == ("uncertain", "cancelled")
