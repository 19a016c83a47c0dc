"""Retries and fallbacks in the service: each attempt is settled, the client gets one answer.

`test_retry.py` has the rules for retries alone.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert

from gateway.accounts.principals import Role
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.circuit_breaker.stalls import Stalls
from gateway.db.tables import accounts, attempts, predictions, stops, utc_now
from gateway.errors import ServiceError
from gateway.pipeline.attempts import Attempts
from gateway.pipeline.pipeline import Pipeline
from gateway.policy import Policy
from gateway.providers.base import BadAnswer, Chunks, ProviderFailure, ProviderRequest, Quota, Reply
from gateway.providers.parameters import BOUNDED, DROPPED
from gateway.rate_limits.limits import Limits
from tests.fake_provider import (
    COST,
    MAX_COST,
    USAGE,
    FakeProvider,
    chunk,
    completion,
    hang,
    stream_fine,
)
from tests.fixtures.service import Start
from tests.ledger_helpers import add_plans, call_of, check_accounts, ledger_of, principal_of, usd
from tests.limits import Shared
from tests.support import Service, User, chat, error_of, eventually, said, sse, write_policy

CHAT = "/v1/chat/completions"
AGAIN, TWICE, FIRST, DEAR, SECOND, THIRD = (
    f"offline/{name}" for name in ("again", "twice", "first", "dear", "second", "third")
)
BROKEN = ProviderFailure("broken", status=500)
UNREACHED = ProviderFailure("no connection")
STOPPED = (503, "generation_stopped", None)


def model(name: str, attempts: int = 1, output: str = "2.00", *fallbacks: str) -> str:
    return f"""
[models."{name}"]
provider = "offline"
name = "{name.rpartition("/")[2]}"
kind = "chat"
input_usd_per_million_tokens = 0.25
cache_write_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = {output}
max_output_tokens = 64
max_input_tokens = 2000
prices_checked = 2026-11-01
attempts = {attempts}
base_delay_seconds = 0.001
fallbacks = {list(fallbacks)}
"""


MODELS = (
    model(AGAIN, 3)
    + model(TWICE, 2, "2.00", AGAIN)
    + model(FIRST, 1, "2.00", DEAR, SECOND, THIRD)
    + model(DEAR, 1, "2.01")
    + model(SECOND)
    + model(THIRD, 1, "1.00")
)


class Turns:
    """A provider that does one thing after the other: fails with it, or answers it."""

    def __init__(self, *turns: Exception | Reply) -> None:
        self.turns = list(turns)
        self.at: list[float] = []

    async def answer(self, request: ProviderRequest) -> Reply:
        self.at.append(time.monotonic())
        turn = self.turns.pop(0)
        request.sent = turn is not UNREACHED
        if isinstance(turn, Exception):
            raise turn
        return turn

    async def stream(self, request: ProviderRequest) -> Chunks:
        await self.answer(request)
        async for chunks in stream_fine(request):
            yield chunks


FINE = Reply(completion("fine"), USAGE)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, policy_dir: Path) -> FakeProvider:
    write_policy(policy_dir, MODELS)
    return FakeProvider.install(monkeypatch)


@pytest.fixture
async def service(scripted: FakeProvider, start: Start) -> Service:
    return await start()


def plays(scripted: FakeProvider, *turns: Exception | Reply) -> Turns:
    played = Turns(*turns)
    scripted.on_answer, scripted.on_stream = played.answer, played.stream
    return played


async def ledger(service: Service) -> list[tuple[int, str, str, int]]:
    """Number, model, state and cost of every attempt; checks their sum."""
    rows = await service.rows(attempts)
    prediction = await service.prediction()
    assert prediction.cost_nano_usd == sum(row.cost_nano_usd for row in rows)
    assert prediction.finished_at is not None
    await check_accounts(service)
    return [(row.number, row.model, row.state, row.cost_nano_usd) for row in rows]


@pytest.mark.parametrize("stream", [False, True])
async def test_every_attempt_is_in_the_ledger_and_all_are_one_answer(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider, stream: bool
) -> None:
    plays(scripted, BROKEN, UNREACHED, FINE)
    answer = await client.post(CHAT, json=chat(model=AGAIN, stream=stream))
    assert answer.status_code == 200
    assert answer.headers["x-served-model"] == AGAIN
    assert await ledger(service) == [
        (1, AGAIN, "uncertain", MAX_COST),
        (2, AGAIN, "released", 0),
        (3, AGAIN, "settled", COST),
    ]
    prediction = await service.prediction()
    assert answer.headers["X-Prediction-ID"] == prediction.id
    assert (prediction.status, prediction.outcome) == ("succeeded", "ok")
    assert {row.prediction_id for row in await service.rows(attempts)} == {prediction.id}


async def test_there_are_no_more_attempts_than_the_model_has(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    plays(scripted, *[BROKEN] * 4)
    answer = await client.post(CHAT, json=chat(model=AGAIN))
    assert error_of(answer) == (502, "provider_error", None)
    assert [row[0] for row in await ledger(service)] == [1, 2, 3]
    prediction = await service.prediction()
    assert (prediction.status, prediction.cost_nano_usd) == ("failed", 3 * MAX_COST)


async def test_an_outage_is_multiplied_by_little(
    client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    """Five calls spend the ten retries that were saved; then every tenth call has one."""
    conflict = ProviderFailure("conflict", status=409, billed=False)
    plays(scripted, *[conflict] * 63)
    for _ in range(21):
        assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == 502
    assert len(scripted.asked) == 21 + 12


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (ProviderFailure("refused", status=400, billed=False), 400),
        (ProviderFailure("no key", status=401, billed=False), 503),
        (BadAnswer("nonsense"), 502),
    ],
    ids=str,
)
async def test_what_would_fail_again_is_not_tried_again(
    service: Service,
    client: httpx2.AsyncClient,
    scripted: FakeProvider,
    failure: ProviderFailure,
    status: int,
) -> None:
    plays(scripted, failure, FINE)
    assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == status
    assert len(scripted.asked) == 1


async def test_work_that_goes_on_there_is_not_begun_a_second_time(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    async def lose(request: ProviderRequest) -> Reply:
        request.sent, request.remote_id = True, "r1"
        raise BROKEN

    scripted.on_answer = lose
    for name in (AGAIN, FIRST):
        assert (await client.post(CHAT, json=chat(model=name))).status_code == 502
    assert len(scripted.asked) == 2


async def test_a_provider_is_not_asked_before_it_wants_to_be(
    client: httpx2.AsyncClient, scripted: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.circuit_breaker.breaker.FIRST_PAUSE_SECONDS", 0.01)
    busy = ProviderFailure("busy", status=429, retry_after=0.2, billed=False)
    played = plays(scripted, busy, FINE)
    assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == 200
    first, second = played.at
    assert second - first >= 0.2


async def test_a_pause_that_ends_after_the_deadline_is_not_begun(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    plays(scripted, ProviderFailure("busy", status=503, retry_after=61, billed=False), FINE)
    answer = await client.post(CHAT, json=chat(model=AGAIN))
    assert error_of(answer) == (503, "provider_cooling_down", None)
    assert answer.headers["Retry-After"] == "61"
    assert len(await ledger(service)) == 1


async def test_the_deadline_is_that_of_all_attempts(scripted: FakeProvider, start: Start) -> None:
    service = await start(request_deadline_seconds=1)
    client = service.client(await service.create_user())
    played = Turns(BROKEN, FINE)
    left: list[float] = []

    async def answer(request: ProviderRequest) -> Reply:
        left.append(request.deadline.remaining)
        if len(left) == 2:
            await hang(request)
        return await played.answer(request)

    scripted.on_answer = answer
    late = await client.post(CHAT, json=chat(model=AGAIN))
    assert error_of(late) == (504, "deadline_exceeded", None)
    assert left[1] < left[0] <= 1
    assert [row[2] for row in await ledger(service)] == ["uncertain", "uncertain"]
    assert (await service.prediction()).outcome == "timeout"


async def test_a_stream_is_not_begun_again_after_its_first_byte(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    async def cancel_query(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("one")]
        raise BROKEN

    scripted.on_stream = cancel_query
    for name in (AGAIN, FIRST):
        events = sse((await client.post(CHAT, json=chat(model=name, stream=True))).text)
        assert said(events) == "one"
        assert events[-1]["error"]["code"] == "provider_error"
    assert [row.number for row in await service.rows(attempts)] == [1, 1]


async def test_an_attempt_whose_bill_is_unknown_is_paid_and_the_next_reserves_anew(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    seen: list[set[tuple[int, int]]] = []

    async def look(request: ProviderRequest) -> Reply:
        rows = await service.database.fetch(accounts.select())
        seen.append({(row.spent_nano_usd, row.reserved_nano_usd) for row in rows})
        request.sent = True
        if len(seen) < 3:
            raise BROKEN
        return FINE

    scripted.on_answer = look
    assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == 200
    assert seen == [{(0, MAX_COST)}, {(MAX_COST, MAX_COST)}, {(2 * MAX_COST, MAX_COST)}]


async def test_the_tokens_of_all_attempts_count_against_the_limits(
    service: Service, scripted: FakeProvider
) -> None:
    client = service.client(await service.create_user("thrifty"))
    plays(scripted, BROKEN, BROKEN, FINE, FINE)
    most = len("user" + "one two") + 8 + 16 + 64
    assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == 200
    answer = await client.post(CHAT, json=chat(model=AGAIN))
    left = 550 - 2 * most - sum(USAGE) - most
    # A minute brings 550 back.
    assert left <= int(answer.headers["x-ratelimit-remaining-tokens"]) < left + 80


async def test_the_tokens_and_the_cost_of_all_attempts_are_counted(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient
) -> None:
    before = await service.settled(AGAIN)
    plays(scripted, ProviderFailure("broken", status=500, usage=USAGE), FINE)
    assert (await client.post(CHAT, json=chat(model=AGAIN))).status_code == 200
    counted = await service.settled(AGAIN) - before
    assert counted == Counter(
        cost=2 * COST, input=2 * USAGE.input_tokens, output=2 * USAGE.output_tokens
    )


async def test_a_budget_may_run_out_between_attempts(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    budget = f"requests_per_minute = 60, daily_budget_usd = {usd(2 * MAX_COST - 1)}"
    add_plans(policy_dir, f"capped = {{{budget}}}")
    service = await start()
    client = service.client(await service.create_user("capped"))
    plays(scripted, BROKEN, FINE)
    answer = await client.post(CHAT, json=chat(model=AGAIN))
    assert error_of(answer) == (402, "budget_exceeded", None)
    assert answer.headers["x-should-retry"] == "false"
    assert await ledger(service) == [(1, AGAIN, "uncertain", MAX_COST)]
    assert (await service.prediction()).error["code"] == "budget_exceeded"


async def test_a_probe_that_no_budget_pays_for_leaves_it_to_the_next_call(
    scripted: FakeProvider, start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.circuit_breaker.breaker.FIRST_PAUSE_SECONDS", 0.01)
    budget = f"requests_per_minute = 60, daily_budget_usd = {usd(2 * MAX_COST - 1)}"
    add_plans(policy_dir, f"capped = {{{budget}}}")
    service = await start()
    poor = service.client(await service.create_user("capped"))
    rich = service.client(await service.create_user())
    plays(scripted, BROKEN, FINE)
    assert (await poor.post(CHAT, json=chat(model=SECOND))).status_code == 502
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    asked = service.engine.policy.model(SECOND)
    await circuit_breaker.record_failure(
        await circuit_breaker.acquire(asked), ProviderFailure("busy", status=429, retry_after=0.01)
    )

    async def is_half_open() -> bool:
        (circuit,) = await circuit_breaker.states([asked])
        return circuit.state == "half_open"

    await eventually(is_half_open)
    assert (await poor.post(CHAT, json=chat(model=SECOND))).status_code == 402
    assert (await rich.post(CHAT, json=chat(model=SECOND))).status_code == 200


WAIT = ProviderFailure("busy", status=429, retry_after=25, billed=False)


async def is_between(service: Service) -> bool:
    """Whether the first attempt has ended."""
    return [row.state for row in await service.rows(attempts)] == ["released"]


async def test_a_stop_ends_what_waits_for_its_next_attempt(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    plays(scripted, WAIT, FINE)
    call = asyncio.create_task(client.post(CHAT, json=chat(model=AGAIN)))
    await eventually(lambda: is_between(service))
    admin = service.client(await service.create_user(role=Role.ADMIN))
    await admin.post("/v1/admin/stop", json={"reason": "why", "running": True})
    assert error_of(await call) == STOPPED
    assert await ledger(service) == [(1, AGAIN, "released", 0)]
    assert (await service.prediction()).status == "cancelled"


async def test_a_caller_that_leaves_in_a_pause_leaves_nothing_open(
    service: Service, user: User, scripted: FakeProvider
) -> None:
    plays(scripted, WAIT, FINE)
    pipeline: Pipeline = service.engine.pipeline
    call = asyncio.create_task(pipeline.generate(call_of(principal_of(user), AGAIN)))
    await eventually(lambda: is_between(service))
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    assert await ledger(service) == [(1, AGAIN, "released", 0)]
    assert (await service.prediction()).outcome == "cancelled"


async def test_what_is_erased_in_a_pause_gives_its_slot_back(
    service: Service, scripted: FakeProvider
) -> None:
    client = service.client(await service.create_user("narrow"))
    both = asyncio.Barrier(2)

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        await both.wait()
        if request.model.id == AGAIN:
            raise WAIT
        return FINE

    async def are_between() -> bool:
        return [row.state for row in await service.rows(attempts)] == ["released"] * 2

    scripted.on_answer = answer
    body = {"model": AGAIN, "input": {"messages": chat()["messages"]}}
    later = {"Prefer": "respond-async"}
    begun = [await client.post("/v1/predictions", json=body, headers=later) for _ in range(2)]
    await eventually(are_between)
    refused = await client.post(CHAT, json=chat())
    assert error_of(refused) == (429, "rate_limit_exceeded", "concurrency")
    for each in begun:
        assert (await client.delete(each.headers["Location"])).status_code == 204
    assert [row.status for row in await service.rows(predictions)] == ["cancelled"] * 2
    # Each waits for the other: there are two slots again.
    answers = await asyncio.gather(*(client.post(CHAT, json=chat()) for _ in range(2)))
    assert [each.status_code for each in answers] == [200] * 2


# Fallbacks.


@pytest.mark.parametrize("stream", [False, True])
async def test_fallbacks_are_asked_in_order_and_none_that_can_cost_more(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider, stream: bool
) -> None:
    plays(scripted, BROKEN, UNREACHED, FINE)
    answer = await client.post(CHAT, json=chat(model=FIRST, stream=stream))
    assert answer.headers["x-served-model"] == THIRD
    served = sse(answer.text)[0] if stream else answer.json()
    assert served["model"] == THIRD
    cost = 2 * 250 + 5 * 1000
    assert await ledger(service) == [
        (1, FIRST, "uncertain", MAX_COST),
        (2, SECOND, "released", 0),
        (3, THIRD, "settled", cost),
    ]
    prediction = await service.prediction()
    assert (prediction.model, prediction.served_model) == (FIRST, THIRD)


@pytest.mark.parametrize(("limit", "status", "paid"), [(500, 502, 0), (1000, 200, sum(USAGE))])
async def test_a_fallback_takes_from_the_limits_what_it_can_use(
    scripted: FakeProvider, start: Start, policy_dir: Path, limit: int, status: int, paid: int
) -> None:
    """It is skipped where they do not allow it, and nothing is taken then."""
    long = model(SECOND, 1, "0.20").replace("max_output_tokens = 64", "max_output_tokens = 600")
    write_policy(policy_dir, model(FIRST, 1, "2.00", SECOND) + long + model(THIRD))
    limits = f"{{requests_per_minute = 6000, tokens_per_minute = {limit}}}"
    add_plans(policy_dir, f"exact = {limits}")
    service = await start()
    client = service.client(await service.create_user("exact"))
    plays(scripted, BROKEN, FINE, FINE)
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert answer.status_code == status
    asked = [request.model.id for request in scripted.asked]
    assert asked == [FIRST, SECOND][: 1 + (status == 200)]
    answer = await client.post(CHAT, json=chat(model=THIRD))
    most = len("user" + "one two") + 8 + 16 + 64
    left = limit - most - paid - most
    # A minute brings all of them back.
    assert left <= int(answer.headers["x-ratelimit-remaining-tokens"]) < left + limit // 6


async def test_each_model_has_all_of_its_own_attempts(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    plays(scripted, *[BROKEN] * 4, FINE)
    answer = await client.post(CHAT, json=chat(model=TWICE))
    assert answer.headers["x-served-model"] == AGAIN
    models = [TWICE] * 2 + [AGAIN] * 3
    assert [row[:2] for row in await ledger(service)] == list(enumerate(models, 1))


@pytest.mark.parametrize("failure", [WAIT, ProviderFailure("gone", status=404, billed=False)])
async def test_a_fallback_helps_where_a_retry_does_not(
    client: httpx2.AsyncClient, scripted: FakeProvider, failure: ProviderFailure
) -> None:
    plays(scripted, failure, FINE)
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert answer.headers["x-served-model"] == SECOND


async def test_what_is_wrong_with_the_request_is_wrong_everywhere(
    client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    plays(scripted, ProviderFailure("refused", status=422, billed=False), FINE)
    assert (await client.post(CHAT, json=chat(model=FIRST))).status_code == 400
    assert len(scripted.asked) == 1


async def open_circuit(service: Service, *names: str) -> None:
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    policy: Policy = service.engine.policy
    for seconds, name in enumerate(names, 30):
        await circuit_breaker.record_quota(policy.model(name), Quota(None, None, seconds))


async def stop(service: Service, *names: str) -> None:
    for name in names:
        row = {"target": f"model:{name}", "kind": "stopped", "reason": "why", "running": False}
        await service.write(insert(stops).values(**row, at=utc_now()))


@pytest.mark.parametrize("shut", [open_circuit, stop])
async def test_a_model_that_may_not_be_asked_is_passed_over(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider, shut: Callable[..., Any]
) -> None:
    await shut(service, FIRST, SECOND)
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert (answer.status_code, answer.headers["x-served-model"]) == (200, THIRD)
    assert [row[:2] for row in await ledger(service)] == [(1, THIRD)]


async def test_what_stands_in_for_a_model_is_asked_once(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    await open_circuit(service, FIRST)
    plays(scripted, BROKEN, FINE)
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert answer.headers["x-served-model"] == THIRD
    assert [row[:2] for row in await ledger(service)] == [(1, SECOND), (2, THIRD)]


@pytest.mark.parametrize(
    ("shut", "code"),
    [(open_circuit, "provider_cooling_down"), (stop, "generation_stopped")],
)
async def test_when_none_may_be_asked_the_first_one_says_why(
    service: Service,
    client: httpx2.AsyncClient,
    scripted: FakeProvider,
    shut: Callable[..., Any],
    code: str,
) -> None:
    await shut(service, FIRST, SECOND, THIRD)
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert error_of(answer) == (503, code, None)
    if code == "provider_cooling_down":
        assert answer.headers["Retry-After"] == "30"
    assert (scripted.asked, await service.rows_count()) == ([], 0)


async def test_a_fallback_that_is_shut_between_attempts_is_passed_over(
    service: Service, client: httpx2.AsyncClient, scripted: FakeProvider
) -> None:
    async def fail_and_stop(request: ProviderRequest) -> Reply:
        if request.model.id != FIRST:
            return FINE
        await stop(service, SECOND)
        raise BROKEN

    scripted.on_answer = fail_and_stop
    answer = await client.post(CHAT, json=chat(model=FIRST))
    assert answer.headers["x-served-model"] == THIRD
    assert [row[:2] for row in await ledger(service)] == [(1, FIRST), (2, THIRD)]


class Choices:
    """What may be asked in place of offline/first, by providers that a test changes."""

    def __init__(self, service: Service) -> None:
        loaded: Policy = service.engine.policy
        others = {
            name: loaded.models[name].model_copy(update={"provider": "other"})
            for name in (FIRST, SECOND)
        }
        models = {**loaded.models, **others}
        self.policy = loaded._replace(models=models)
        self.offline, self.other = FakeProvider(), FakeProvider()
        self.ledger = ledger_of(service)
        self.limits = Limits(self.policy, Shared())

    def names(self, *, production: bool = False, **body: Any) -> Sequence[str]:
        providers = {"offline": self.offline, "other": self.other}
        parts = CircuitBreaker(Shared()), self.limits, self.ledger, providers, Stalls()
        attempts = Attempts(self.policy, *parts, production=production)
        asked = {"messages": chat()["messages"], **body}
        user = User("usr_1", "", "", {})
        call = replace(call_of(principal_of(user)), body=asked)
        return [each.model.id for each in attempts.candidates(self.policy.models[FIRST], call)]


@pytest.fixture
async def choices(service: Service) -> Choices:
    return Choices(service)


async def test_in_production_the_offline_provider_is_no_fallback(choices: Choices) -> None:
    assert choices.names() == [FIRST, SECOND, THIRD]
    assert choices.names(production=True) == [FIRST, SECOND]


async def test_a_fallback_that_lacks_a_parameter_is_skipped(choices: Choices) -> None:
    choices.offline.parameters = {"chat": {"messages": BOUNDED, "user": DROPPED}}
    assert choices.names() == [FIRST, SECOND, THIRD]
    assert choices.names(seed=1) == [FIRST, SECOND]
    assert choices.names(user="zoë") == [FIRST, SECOND, THIRD]


async def test_a_fallback_without_its_credential_is_skipped(choices: Choices) -> None:
    choices.offline.lacks = "SOME_KEY"
    assert choices.names() == [FIRST, SECOND]
    choices.other.lacks = "OTHER_KEY"
    with pytest.raises(ServiceError, match="OTHER_KEY"):
        choices.names()


async def test_a_fallback_for_which_the_request_is_too_large_is_skipped(choices: Choices) -> None:
    short = choices.policy.models[SECOND].model_copy(update={"max_input_tokens": 10})
    choices.policy.models[SECOND] = short
    assert choices.names() == [FIRST, THIRD]
