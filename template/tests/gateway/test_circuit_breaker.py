"""Cooldowns: a failing provider is left alone by all processes, and one probe finds it again."""

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.circuit_breaker.breaker import PROBE_SECONDS, CircuitBreaker
from gateway.circuit_breaker.window import CircuitStatus, FailureWindow, Permit
from gateway.errors import LimiterUnavailable, ProviderCoolingDown
from gateway.policy import Model
from gateway.providers.base import BadAnswer, Exchange, ProviderFailure, Quota
from gateway.rate_limits.base import Limiter, StoredValue
from tests.limits import Shared, Slow
from tests.support import POLICY, eventually, unique

FAILURE = ProviderFailure("it failed", status=500)


def model() -> Model:
    """One that no other test knows of."""
    name = unique("offline/")
    return Model.model_validate(POLICY["offline/echo"]).model_copy(update={"id": name})


def busy(seconds: float, status: int = 429) -> ProviderFailure:
    return ProviderFailure("busy", status=status, retry_after=seconds)


async def fail(
    circuit_breaker: CircuitBreaker, asked: Model, failure: ProviderFailure = FAILURE
) -> None:
    await circuit_breaker.record_failure(await circuit_breaker.acquire(asked), failure)


async def state(circuit_breaker: CircuitBreaker, asked: Model) -> CircuitStatus:
    (circuit,) = await circuit_breaker.states([asked])
    return circuit


async def left(shared: Shared, circuit_breaker: CircuitBreaker, asked: Model) -> float:
    """Seconds for which calls are refused; the clock moves on by so much."""
    began = shared.now
    while (await state(circuit_breaker, asked)).state == "open":
        with pytest.raises(ProviderCoolingDown):
            await circuit_breaker.acquire(asked)
        shared.now += 0.25
    return shared.now - began


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def circuit_breaker(shared: Shared) -> CircuitBreaker:
    return CircuitBreaker(shared, shared.clock)


@pytest.fixture
def circuit_breakers(limiters: list[Limiter]) -> list[CircuitBreaker]:
    """Several processes', over the chosen limiter."""
    return [CircuitBreaker(limiter) for limiter in (*limiters, *limiters)]


async def refusals(
    circuit_breakers: list[CircuitBreaker], asked: Model, times: int
) -> list[Permit | Exception]:
    """What so many calls at once meet, over all processes in turn."""
    turns = itertools.islice(itertools.cycle(circuit_breakers), times)
    met = await asyncio.gather(*(turn.acquire(asked) for turn in turns), return_exceptions=True)
    return [each for each in met if isinstance(each, Permit | ProviderCoolingDown)]


async def test_a_pause_that_a_provider_asks_for_is_kept_by_all(
    circuit_breakers: list[CircuitBreaker],
) -> None:
    asked = model()
    await fail(circuit_breakers[0], asked, busy(40))
    met = await refusals(circuit_breakers, asked, 20)
    told = [each.headers["Retry-After"] for each in met if isinstance(each, ProviderCoolingDown)]
    assert len(told) == 20
    assert {38, 39, 40} >= {int(seconds) for seconds in told}


async def test_one_call_over_all_finds_out_whether_the_provider_is_back(
    circuit_breakers: list[CircuitBreaker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.circuit_breaker.breaker.FIRST_PAUSE_SECONDS", 0.05)
    asked = model()

    async def is_half_open() -> bool:
        return (await state(circuit_breakers[-1], asked)).state == "half_open"

    for answers in (False, True):
        if not answers:
            await fail(circuit_breakers[0], asked, busy(0.05))
        await eventually(is_half_open)
        passed = [
            each for each in await refusals(circuit_breakers, asked, 40) if isinstance(each, Permit)
        ]
        (probe,) = passed
        if answers:
            await circuit_breakers[0].record_success(probe)
        else:
            await circuit_breakers[0].record_failure(probe, FAILURE)
            assert not any(
                isinstance(e, Permit) for e in await refusals(circuit_breakers, asked, 4)
            )
    assert (await state(circuit_breakers[-1], asked)).state == "closed"
    assert all(isinstance(each, Permit) for each in await refusals(circuit_breakers, asked, 40))


async def test_a_call_that_says_nothing_gives_the_probe_back(
    circuit_breakers: list[CircuitBreaker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.circuit_breaker.breaker.FIRST_PAUSE_SECONDS", 0.01)
    asked = model()
    await fail(circuit_breakers[0], asked, busy(0.01))

    async def try_acquire() -> Permit | None:
        try:
            return await circuit_breakers[0].acquire(asked)
        except ProviderCoolingDown:
            return None

    for _ in range(3):
        permit = await eventually(try_acquire)
        assert permit is not None
        assert permit.probe is not None
        assert await try_acquire() is None
        await circuit_breakers[0].release(permit)


async def test_the_remaining_quota_is_shared_with_all_processes(
    circuit_breakers: list[CircuitBreaker],
) -> None:
    asked = model()
    assert (await state(circuit_breakers[0], asked))[2:] == ("closed", None, None, None)
    await circuit_breakers[0].record_quota(asked, Quota(7, None, 0.0))
    told = await state(circuit_breakers[-1], asked)
    assert told == (asked.provider, asked.id, "closed", None, 7, None)


async def test_a_closed_circuit_costs_a_round_trip_only_now_and_then(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    for _ in range(10):
        await asyncio.gather(*(circuit_breaker.acquire(asked) for _ in range(100)))
        assert shared.steps == 1
        shared.now += 0.009
    shared.now += 0.1
    await asyncio.gather(*(circuit_breaker.acquire(model()) for _ in range(100)))
    assert shared.steps <= 3


async def test_other_processes_see_an_open_circuit_within_a_moment(shared: Shared) -> None:
    here, there = CircuitBreaker(shared, shared.clock), CircuitBreaker(shared, shared.clock)
    asked = model()
    await there.acquire(asked)
    await fail(here, asked, busy(9))
    shared.now += 0.1
    with pytest.raises(ProviderCoolingDown):
        await there.acquire(asked)


async def test_pauses_grow_to_a_maximum_and_start_again_after_a_success(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    for _ in range(5):
        await fail(circuit_breaker, asked)
    pauses = []
    for _ in range(11):
        pauses.append(await left(shared, circuit_breaker, asked))
        await fail(circuit_breaker, asked)
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
    await left(shared, circuit_breaker, asked)
    await circuit_breaker.record_success(await circuit_breaker.acquire(asked))
    await fail(circuit_breaker, asked, busy(0.25))
    assert await left(shared, circuit_breaker, asked) == 1


@pytest.mark.parametrize(("most", "kept"), [(None, 3600), (10, 10)])
async def test_a_provider_is_believed_up_to_a_maximum(
    shared: Shared, circuit_breaker: CircuitBreaker, most: int | None, kept: int
) -> None:
    asked = model()
    if most is not None:
        asked = asked.model_copy(update={"max_cooldown_seconds": most})
    for told in (9e9, kept + 1):
        await fail(circuit_breaker, asked, busy(told))
        assert await left(shared, circuit_breaker, asked) == kept
        await circuit_breaker.reset([asked])
    await circuit_breaker.record_quota(asked, Quota(0, 0, 9e9))
    assert await left(shared, circuit_breaker, asked) == kept


async def test_pauses_grow_to_the_models_maximum(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model().model_copy(update={"max_cooldown_seconds": 3})
    pauses = []
    for _ in range(4):
        await fail(circuit_breaker, asked, busy(0.25))
        pauses.append(await left(shared, circuit_breaker, asked))
    assert pauses == [1, 2, 3, 3]


async def test_a_reset_closes_the_circuit_for_all_processes(
    circuit_breakers: list[CircuitBreaker],
) -> None:
    """Each process does it, as each reads of the start."""
    asked, other = model(), model()
    for each in (asked, other):
        await fail(circuit_breakers[0], each, busy(3000))
        assert not any(isinstance(e, Permit) for e in await refusals(circuit_breakers, each, 8))
    for circuit_breaker in circuit_breakers:
        await circuit_breaker.reset([asked])
    assert all(isinstance(each, Permit) for each in await refusals(circuit_breakers, asked, 40))
    assert not any(isinstance(each, Permit) for each in await refusals(circuit_breakers, other, 8))
    await fail(circuit_breakers[0], asked, busy(0.01))
    assert (await state(circuit_breakers[-1], asked)).state == "open"


async def test_failures_of_before_a_lift_open_nothing(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    early = [await circuit_breaker.acquire(asked) for _ in range(10)]
    await fail(circuit_breaker, asked, busy(3000))
    await circuit_breaker.reset([asked])
    for each in early:
        await circuit_breaker.record_failure(each, FAILURE)
    assert (await state(circuit_breaker, asked)).state == "closed"


async def test_a_probe_that_takes_too_long_is_followed_by_another(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    """The end of the first call says nothing about the probe."""
    asked = model()
    await fail(circuit_breaker, asked, busy(2))
    shared.now += 2
    slow = await circuit_breaker.acquire(asked)
    shared.now += PROBE_SECONDS - 0.25
    with pytest.raises(ProviderCoolingDown):
        await circuit_breaker.acquire(asked)
    shared.now += 0.25
    await circuit_breaker.record_success(await circuit_breaker.acquire(asked))
    await circuit_breaker.record_failure(slow, FAILURE)
    assert (await state(circuit_breaker, asked)).state == "closed"


async def test_an_old_quota_opens_no_circuit(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    """A long stream reports at its end the quota of its first header."""
    asked = model()
    await circuit_breaker.record_quota(asked, Quota(0, 0, 6.0), age=61)
    told = await state(circuit_breaker, asked)
    assert (told.state, told.remaining_requests) == ("closed", None)
    await circuit_breaker.record_quota(asked, Quota(0, 0, 6.0), age=4)
    assert await left(shared, circuit_breaker, asked) == 2


@pytest.mark.parametrize("told", [2, 50, 400])
async def test_the_pause_that_is_asked_for_is_the_shortest(
    shared: Shared, circuit_breaker: CircuitBreaker, told: float
) -> None:
    asked = model()
    for trips in range(4):
        await fail(circuit_breaker, asked, busy(told, status=503))
        assert await left(shared, circuit_breaker, asked) == max(told, 2**trips)


async def test_a_shorter_pause_shortens_nothing(shared: Shared) -> None:
    here, there = CircuitBreaker(shared, shared.clock), CircuitBreaker(shared, shared.clock)
    asked = model()
    early, late = await here.acquire(asked), await there.acquire(asked)
    await here.record_failure(early, busy(30))
    await there.record_failure(late, busy(2))
    await there.record_quota(asked, Quota(None, None, 3))
    newcomer = CircuitBreaker(shared, shared.clock)
    assert await left(shared, newcomer, asked) == 30


async def test_those_that_fail_together_are_one_outage(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    other = CircuitBreaker(shared, shared.clock)
    asked = model()
    permit = [await circuit_breaker.acquire(asked) for _ in range(200)]
    elsewhere = [await other.acquire(asked) for _ in range(200)]
    for here, there in zip(permit, elsewhere, strict=True):
        await circuit_breaker.record_failure(here, FAILURE)
        await other.record_failure(there, FAILURE)
    assert await left(shared, circuit_breaker, asked) == 1


async def test_requests_that_were_joined_failed_once(circuit_breaker: CircuitBreaker) -> None:
    asked = model()
    for calls in range(1, 6):
        joined = [await circuit_breaker.acquire(asked) for _ in range(8)]
        exchange = Exchange()
        for permit in joined:
            await circuit_breaker.record_failure(replace(permit, exchange=exchange), FAILURE)
        assert (await state(circuit_breaker, asked)).state == ("open" if calls == 5 else "closed")


async def test_late_failures_of_earlier_calls_do_not_open_it_again(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    early = [await circuit_breaker.acquire(asked) for _ in range(10)]
    await fail(circuit_breaker, asked, busy(2))
    shared.now += 2
    for each in early:
        await circuit_breaker.record_failure(each, FAILURE)
    assert (await state(circuit_breaker, asked)).state == "half_open"


async def test_failures_of_an_outage_that_is_over_do_not_count(shared: Shared) -> None:
    """In the process that opened the circuit, and in one that only saw it open."""
    here, there = CircuitBreaker(shared, shared.clock), CircuitBreaker(shared, shared.clock)
    asked = model()
    for circuit_breaker, calls in ((there, 19), (here, 20)):
        for number in range(calls):
            permit = await circuit_breaker.acquire(asked)
            if number % 2:
                await circuit_breaker.record_failure(permit, FAILURE)
            else:
                await circuit_breaker.record_success(permit)
    shared.now += 0.5
    with pytest.raises(ProviderCoolingDown):
        await there.acquire(asked)
    shared.now += 0.5
    await here.record_success(await here.acquire(asked))
    for circuit_breaker in (here, there):
        await fail(circuit_breaker, asked)
        await fail(circuit_breaker, asked)
        assert (await state(circuit_breaker, asked)).state == "closed"


async def test_a_late_answer_of_an_earlier_call_closes_nothing(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    early = await circuit_breaker.acquire(asked)
    await fail(circuit_breaker, asked, busy(9))
    await circuit_breaker.record_success(early)
    with pytest.raises(ProviderCoolingDown):
        await circuit_breaker.acquire(asked)


@pytest.mark.parametrize(
    "failure",
    [
        ProviderFailure("no connection"),
        ProviderFailure("too slow", status=408),
        ProviderFailure("too many", status=429),
        ProviderFailure("broken", status=500),
        ProviderFailure("busy", status=503),
    ],
    ids=str,
)
async def test_five_failures_in_a_row_open_it(
    shared: Shared, circuit_breaker: CircuitBreaker, failure: ProviderFailure
) -> None:
    asked = model()
    for _ in range(4):
        await fail(circuit_breaker, asked, failure)
    await circuit_breaker.record_success(await circuit_breaker.acquire(asked))
    for _ in range(5):
        assert (await state(circuit_breaker, asked)).state == "closed"
        await fail(circuit_breaker, asked, failure)
    assert (await state(circuit_breaker, asked)).state == "open"


@pytest.mark.parametrize("status", [None, 400, 401, 404, 409, 422])
async def test_what_is_not_the_providers_trouble_opens_nothing(
    circuit_breaker: CircuitBreaker, status: int | None
) -> None:
    failure = BadAnswer("of no use", status=status, retry_after=9)
    asked = model()
    for _ in range(30):
        await fail(circuit_breaker, asked, failure)
    assert (await state(circuit_breaker, asked)).state == "closed"


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.5, 7, 40])), max_size=80))
def test_half_of_the_last_calls_or_five_in_a_row_are_too_many(
    calls: list[tuple[bool, float]],
) -> None:
    window, now, seen = FailureWindow(), 0.0, list[tuple[float, bool]]()
    for failed, pause in calls:
        now += pause
        window.add(now, failed=failed)
        seen.append((now, failed))
        recent = [bad for at, bad in seen if int(at) > int(now) - 30]
        frequent = len(recent) >= 20 and 2 * sum(recent) >= len(recent)
        in_a_row = len(seen) >= 5 and all(bad for _, bad in seen[-5:])
        assert window.is_alarming == (frequent or in_a_row)


async def test_a_circuit_opens_before_the_limit_is_hit_and_closes_with_its_reset(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    await circuit_breaker.record_success(await circuit_breaker.acquire(asked))
    await circuit_breaker.record_quota(asked, Quota(0, 100, 6.0))
    told = await state(circuit_breaker, asked)
    assert (told.state, told.remaining_requests, told.remaining_tokens) == ("open", 0, 100)
    assert await left(shared, circuit_breaker, asked) == 6
    permit = await asyncio.gather(*(circuit_breaker.acquire(asked) for _ in range(5)))
    assert [each.probe for each in permit] == [None] * 5


async def test_without_the_limiter_new_calls_are_refused_and_results_are_kept(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    early = await circuit_breaker.acquire(asked)
    shared.is_dead = True
    await circuit_breaker.record_failure(early, busy(9))
    await circuit_breaker.record_quota(asked, Quota(1, 1, 0.0))
    with pytest.raises(ProviderCoolingDown):
        await circuit_breaker.acquire(asked)
    shared.now += 9
    with pytest.raises(LimiterUnavailable):
        await circuit_breaker.acquire(asked)


async def test_a_caller_that_leaves_while_it_gets_the_probe_gives_it_back(
    shared: Shared, circuit_breaker: CircuitBreaker
) -> None:
    asked = model()
    await fail(circuit_breaker, asked, busy(2))
    shared.now += 2
    for ticks in range(12):
        leaving = asyncio.create_task(circuit_breaker.acquire(asked))
        for _ in range(ticks):
            await asyncio.sleep(0)
        leaving.cancel()
        met = (await asyncio.gather(leaving, return_exceptions=True))[0]
        if isinstance(met, Permit):
            await circuit_breaker.release(met)
        probe = await circuit_breaker.acquire(asked)
        assert probe.probe is not None
        await circuit_breaker.release(probe)


async def test_a_probe_that_cannot_read_the_state_frees_its_slot(
    shared: Shared, circuit_breaker: CircuitBreaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = model()
    await fail(circuit_breaker, asked, busy(2))
    shared.now += 2
    recall, looks = shared.get, itertools.count(1)

    async def fail_once(keys: Sequence[str]) -> Sequence[StoredValue | None]:
        if next(looks) == 2:
            raise LimiterUnavailable("gone", retry_after=1)
        return await recall(keys)

    monkeypatch.setattr(shared, "get", fail_once)
    with pytest.raises(LimiterUnavailable):
        await circuit_breaker.acquire(asked)
    assert shared.holders == {}
    assert (await circuit_breaker.acquire(asked)).probe is not None


@pytest.mark.parametrize("is_back", [False, True])
async def test_a_late_probe_sees_the_result_of_the_previous_probe(
    shared: Shared, circuit_breaker: CircuitBreaker, is_back: bool
) -> None:
    asked = model()
    await fail(circuit_breaker, asked, busy(2))
    shared.now += 2
    slow = Slow(shared)
    late = CircuitBreaker(slow, shared.clock)
    probe = await circuit_breaker.acquire(asked)
    entering = asyncio.create_task(late.acquire(asked))
    await slow.asked.wait()
    await (
        circuit_breaker.record_success(probe)
        if is_back
        else circuit_breaker.record_failure(probe, FAILURE)
    )
    slow.gate.set()
    if is_back:
        assert (await entering).probe is None
    else:
        with pytest.raises(ProviderCoolingDown):
            await entering
    assert shared.holders == {}


class Step(NamedTuple):
    """A call of one of three processes, how it ends, and how much time and turns pass."""

    process: int
    ending: str
    turns: int
    seconds: float
    rest: int


steps = st.builds(
    Step,
    st.integers(0, 2),
    st.sampled_from(["succeeds", "fails", "is told to wait", "leaves"]),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.05, 0.2, 1.0, 3.0]),
    st.integers(0, 8),
)


@given(st.lists(steps, max_size=18))
async def test_there_is_never_more_than_one_probe(schedule: list[Step]) -> None:
    """Over several processes, in any order of their steps, with whatever old state each saw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.circuit_breaker.breaker.PROBE_SECONDS", 60.0)
        await _probe_one_by_one(schedule)


async def _probe_one_by_one(schedule: list[Step]) -> None:
    shared, asked = Shared(), model()
    processes = [CircuitBreaker(shared, shared.clock) for _ in range(3)]
    probing: set[str] = set()

    async def call(step: Step) -> None:
        circuit_breaker = processes[step.process]
        try:
            permit = await circuit_breaker.acquire(asked)
        except ProviderCoolingDown:
            return
        if permit.probe is not None:
            assert not probing
            probing.add(permit.probe.holder)
        for _ in range(step.turns):
            await asyncio.sleep(0)
        probing.discard(permit.probe.holder if permit.probe else "")
        if step.ending == "succeeds":
            await circuit_breaker.record_success(permit)
        elif step.ending == "leaves":
            await circuit_breaker.release(permit)
        else:
            await circuit_breaker.record_failure(
                permit, busy(2) if step.ending != "fails" else FAILURE
            )

    for _ in range(5):
        await fail(processes[0], asked)
    shared.now += 1
    async with asyncio.TaskGroup() as tasks:
        for step in schedule:
            tasks.create_task(call(step))
            for _ in range(step.rest):
                await asyncio.sleep(0)
            shared.now += step.seconds
    shared.now += 300
    for circuit_breaker in processes:  # Whatever happened, one success brings it back.
        await circuit_breaker.record_success(await circuit_breaker.acquire(asked))
        assert (await state(circuit_breaker, asked)).state == "closed"
