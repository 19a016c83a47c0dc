"""Circuit breakers: a slow client or a busy process never opens one."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.accounts.principals import Role
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.circuit_breaker.stalls import LATE_SECONDS, TICK_SECONDS, Stalls
from gateway.db.tables import predictions
from gateway.ledger.ledger import Ledger
from gateway.policy import Model
from gateway.providers.base import Chunks, ProviderFailure, ProviderRequest, Reply
from tests.fake_provider import MAX_COST, FakeProvider, chunk, fail_with, hang, say_fine
from tests.fixtures.service import Run, Start
from tests.gateway.test_streams import fail_after_one, hang_after_two, open_stream
from tests.ledger_helpers import add_plans, usd
from tests.support import SOON_SECONDS, Service, chat, error_of, eventually, sse

CHAT, ECHO = "/v1/chat/completions", "offline/echo"
LONG = chat(stream=True)
LOST = ProviderFailure("connection lost")
BROKEN = ProviderFailure("broken", status=500)
# More than open a circuit in a row.
MANY = 8


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


def asked_model(service: Service) -> Model:
    model: Model = service.engine.policy.models[ECHO]
    return model


async def state(service: Service) -> str:
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    (circuit,) = await circuit_breaker.states([asked_model(service)])
    return circuit.state


async def open_circuit(service: Service, seconds: float) -> None:
    """Open the circuit breaker as an answer with `Retry-After` does."""
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    failure = ProviderFailure("busy", status=429, retry_after=seconds)
    await circuit_breaker.record_failure(
        await circuit_breaker.acquire(asked_model(service)), failure
    )


async def half_open(service: Service) -> None:
    async def is_half_open() -> bool:
        return await state(service) == "half_open"

    await open_circuit(service, 0.01)
    await eventually(is_half_open)


def waiting_answer() -> tuple[Callable[[ProviderRequest], Awaitable[Reply]], asyncio.Event]:
    """An answer that comes when the event is set."""
    over = asyncio.Event()

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        await over.wait()
        return await say_fine(request)

    return answer, over


async def many(client: httpx2.AsyncClient, body: dict[str, Any]) -> list[httpx2.Response]:
    """The answers to many requests at once."""
    return await asyncio.gather(*(client.post(CHAT, json=body) for _ in range(MANY)))


async def a_chat(service: Service) -> int:
    """The status of another user's chat."""
    client = service.client(await service.create_user())
    return (await client.post(CHAT, json=chat())).status_code


async def test_long_streams_of_a_user_do_not_open_the_circuit(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = hang_after_two
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    for answer in await many(client, LONG):
        assert sse(answer.text)[-1]["error"]["code"] == "deadline_exceeded"
    assert (await state(service), await a_chat(service)) == ("closed", 200)


async def test_clients_that_do_not_read_do_not_open_the_circuit(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.event_stream.END_SECONDS", 0.1)

    async def flood(request: ProviderRequest) -> Chunks:
        request.sent = True
        while True:
            yield [chunk("x" * 2**20)]
            await asyncio.sleep(0)

    scripted.on_stream = flood
    service = await start(request_deadline_seconds=SOON_SECONDS)
    user = await service.create_user()
    writers = [await open_stream(service, user) for _ in range(MANY)]

    async def all_ended() -> bool:
        rows = await service.rows(predictions)
        return len(rows) == MANY and all(row.status != "running" for row in rows)

    await eventually(all_ended)
    for writer in writers:
        writer.transport.abort()
    assert (await state(service), await a_chat(service)) == ("closed", 200)


@pytest.mark.parametrize("calls", [1, 6])
async def test_connections_that_break_after_the_first_chunk_count_for_nothing(
    scripted: FakeProvider, start: Start, calls: int
) -> None:
    """A provider may hang up on a client that reads slowly."""
    scripted.on_stream = fail_after_one(LOST)
    service = await start()
    client = service.client(await service.create_user())
    for _ in range(calls):
        for answer in await many(client, LONG):
            assert sse(answer.text)[-1]["error"]["code"] == "provider_error"
    assert (await state(service), await a_chat(service)) == ("closed", 200)


async def test_an_error_event_in_a_stream_counts(scripted: FakeProvider, start: Start) -> None:
    scripted.on_stream = fail_after_one(BROKEN)
    service = await start()
    client = service.client(await service.create_user())
    for _ in range(2):
        await many(client, LONG)
    assert await state(service) == "open"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_answers_no_call_opens_the_circuit(
    scripted: FakeProvider, start: Start, stream: bool
) -> None:
    async def hang_before(request: ProviderRequest) -> Chunks:
        await hang(request)
        yield []

    scripted.on_answer, scripted.on_stream = hang, hang_before
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())

    async def is_open() -> bool:
        # While the circuit is closed, each answer is one of a deadline.
        answers = await many(client, chat(stream=stream))
        assert {answer.status_code for answer in answers} == {504}
        return await state(service) == "open"

    # On a busy machine, a deadline may pass before the provider is asked, which counts for nothing.
    await eventually(is_open)


async def test_long_answers_count_for_nothing_while_others_are_answered(
    scripted: FakeProvider, start: Start
) -> None:
    async def answer(request: ProviderRequest) -> Reply:
        return await (hang(request) if "long" in str(request.body) else say_fine(request))

    scripted.on_answer = answer
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    waiting = asyncio.create_task(many(client, chat("long")))

    async def all_asked() -> bool:
        return len(scripted.asked) == MANY

    await eventually(all_asked)
    assert await a_chat(service) == 200
    assert {answer.status_code for answer in await waiting} == {504}
    assert (await state(service), await a_chat(service)) == ("closed", 200)


async def test_a_call_that_waited_for_its_budget_says_nothing_of_the_provider(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    opens = Ledger.reserve

    async def open_late(*given: Any, **options: Any) -> None:
        await asyncio.sleep(0.7 * SOON_SECONDS)
        await opens(*given, **options)

    monkeypatch.setattr(Ledger, "reserve", open_late)
    scripted.on_answer = hang
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    assert {answer.status_code for answer in await many(client, chat())} == {504}
    assert await state(service) == "closed"


@pytest.mark.parametrize("ending", ["time is up", "lost"])
async def test_a_process_that_hung_blames_no_provider(
    scripted: FakeProvider, start: Start, ending: str
) -> None:
    woken = asyncio.Event()

    async def lose(request: ProviderRequest) -> Reply:
        request.sent = True
        await woken.wait()
        raise LOST

    scripted.on_answer = hang if ending == "time is up" else lose
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    waiting = asyncio.create_task(many(client, chat()))

    async def all_asked() -> bool:
        return len(scripted.asked) == MANY

    await eventually(all_asked)
    time.sleep(TICK_SECONDS + LATE_SECONDS + SOON_SECONDS)  # noqa: ASYNC251 - as if it was frozen
    woken.set()
    assert {answer.status_code for answer in await waiting} <= {502, 504}
    assert await state(service) == "closed"


def test_a_late_tick_is_a_stall() -> None:
    now = 0.0
    stalls = Stalls(lambda: now)
    for pause in (TICK_SECONDS, TICK_SECONDS + LATE_SECONDS):
        began, now = now, now + pause
        assert not stalls.since(began)
    began, now = now, now + TICK_SECONDS + LATE_SECONDS + 0.01
    assert stalls.since(began)
    assert not stalls.since(now + 1)


async def test_the_first_chunk_of_a_probe_lets_others_in(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = hang_after_two
    service = await start()
    await half_open(service)
    client = service.client(await service.create_user())
    async with client.stream("POST", CHAT, json=LONG) as probe:
        await anext(probe.aiter_lines())
        assert (await state(service), await a_chat(service)) == ("closed", 200)


async def test_a_probe_that_is_not_answered_keeps_others_out_for_its_time(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.circuit_breaker.breaker.PROBE_SECONDS", 1.0)
    scripted.on_answer, over = waiting_answer()
    service = await start()
    await half_open(service)
    user = await service.create_user()
    waiting = asyncio.create_task(service.client(user).post(CHAT, json=chat()))

    async def is_asked() -> bool:
        return bool(scripted.asked)

    async def is_let_in() -> bool:
        return await a_chat(service) == 200

    await eventually(is_asked)
    scripted.on_answer = say_fine
    assert await a_chat(service) == 503
    assert await eventually(is_let_in)
    over.set()
    await waiting


async def test_a_probe_does_not_wait_for_its_callers_budget(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    budget = f"requests_per_minute = 60, daily_budget_usd = {usd(MAX_COST)}"
    add_plans(policy_dir, f"capped = {{{budget}}}")
    scripted.on_answer, over = waiting_answer()
    service = await start()
    poor = service.client(await service.create_user("capped"))
    waiting = asyncio.create_task(poor.post(CHAT, json=chat()))

    async def is_asked() -> bool:
        return bool(scripted.asked)

    await eventually(is_asked)
    scripted.on_answer = say_fine
    await half_open(service)
    refused = await poor.post(CHAT, json=chat())
    assert error_of(refused) == (429, "rate_limit_exceeded", "concurrency")
    assert await a_chat(service) == 200
    over.set()
    await waiting


def by_route(service: Service, admin: httpx2.AsyncClient, run: Run) -> Callable[[str], Any]:
    return lambda target: admin.post("/v1/admin/start", json={"target": target})


def by_command(service: Service, admin: httpx2.AsyncClient, run: Run) -> Callable[[str], Any]:
    return lambda target: run("start", target)


@pytest.mark.parametrize("way", [by_route, by_command])
@pytest.mark.parametrize("target", [f"model:{ECHO}", "provider:offline", "service"])
async def test_an_operator_lifts_a_cooldown(
    service: Service, run: Run, way: Callable[..., Any], target: str
) -> None:
    admin = service.client(await service.create_user(role=Role.ADMIN))
    lift = way(service, admin, run)
    await open_circuit(service, 3000)
    assert await a_chat(service) == 503
    await lift("model:offline/embedding")
    assert await state(service) == "open"
    await lift(target)

    async def is_let_in() -> bool:
        return await a_chat(service) == 200

    await eventually(is_let_in)
    assert await state(service) == "closed"


async def test_retry_after_is_at_most_the_cooldown_of_the_model(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_answer = fail_with(sent=True, status=429, retry_after=9e9)
    service = await start()
    client = service.client(await service.create_user())
    answers = [await client.post(CHAT, json=chat()) for _ in range(2)]
    assert [error_of(answer)[1] for answer in answers] == ["provider_cooling_down"] * 2
    assert {3599, 3600} >= {int(answer.headers["Retry-After"]) for answer in answers}


async def test_an_earlier_start_closes_no_circuit_that_opened_later(
    service: Service, run: Run
) -> None:
    await run("start", f"model:{ECHO}")
    await service.engine.stop_watcher.poll()
    await open_circuit(service, 3000)
    await service.engine.stop_watcher.poll()
    assert await state(service) == "open"


async def test_an_answer_in_one_piece_closes_it(scripted: FakeProvider, start: Start) -> None:
    service = await start()
    await half_open(service)
    assert (await a_chat(service), await state(service)) == (200, "closed")
