"""Streams that do not simply end: clients that leave or read slowly, and time that is up."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from sqlalchemy import update

from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.db.tables import predictions, utc_now
from gateway.ledger.ledger import Ledger
from gateway.providers.base import Body, Chunks, ProviderFailure, ProviderRequest, Usage
from tests.fake_provider import (
    COST,
    MAX_COST,
    USAGE,
    FakeProvider,
    chunk,
    hang,
    stream_fine,
    usage_chunk,
)
from tests.fixtures.service import Start
from tests.ledger_helpers import add_plans
from tests.support import SOON_SECONDS, Service, User, chat, error_of, eventually, said, sse

PATH = "/v1/chat/completions"


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


async def hang_after_two(request: ProviderRequest) -> Chunks:
    """Stream two chunks, and never another."""
    request.sent = True
    yield [chunk("one")]
    yield [chunk(" two")]
    await asyncio.Event().wait()


def fail_after_one(failure: Exception) -> Callable[[ProviderRequest], Chunks]:
    """Stream one chunk, and fail."""

    async def stream(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("one")]
        raise failure

    return stream


async def ended(service: Service) -> bool:
    return [row.status == "running" for row in await service.rows(predictions)] == [False]


async def passes(service: Service, user: User) -> bool:
    """Whether a slot is free."""
    return (await service.client(user).post(PATH, json=chat())).status_code == 200


async def open_stream(service: Service, user: User) -> asyncio.StreamWriter:
    """Ask for a stream over an own connection, which is not read."""
    address = urlsplit(service.url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    body = json.dumps(chat(stream=True)).encode()
    headers = {"Host": "test", "Content-Type": "application/json", **user.headers}
    lines = [f"POST {PATH} HTTP/1.1", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return writer


async def test_a_client_that_leaves_cancels_the_work_and_the_maximum_is_paid(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = hang_after_two
    service = await start()
    client = service.client(await service.create_user())
    async with client.stream("POST", PATH, json=chat(stream=True)) as response:
        lines = response.aiter_lines()
        assert json.loads((await anext(lines)).removeprefix("data: "))["choices"]
    await eventually(lambda: ended(service))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("cancelled", "cancelled")
    assert prediction.output["choices"][0]["message"]["content"].startswith("one")
    assert scripted.cancelled == scripted.asked


@pytest.mark.parametrize(
    ("chunks", "paid"),
    [
        ([chunk("fine"), usage_chunk(USAGE)], ("settled", COST)),
        ([{**usage_chunk(USAGE), **chunk("fine", "stop")}], ("settled", COST)),
        ([usage_chunk(USAGE), chunk("fine")], ("uncertain", MAX_COST)),
        ([{**usage_chunk(Usage(2, 1)), **chunk("fi")}], ("uncertain", MAX_COST)),
    ],
    ids=["apart", "with the end", "before", "so far"],
)
async def test_a_client_that_leaves_after_the_usage_pays_the_usage(
    scripted: FakeProvider, start: Start, chunks: list[Body], paid: tuple[str, int]
) -> None:
    async def told(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield chunks
        await asyncio.Event().wait()

    scripted.on_stream = told
    service = await start()
    client = service.client(await service.create_user())
    async with client.stream("POST", PATH, json=chat(stream=True)) as response:
        await anext(response.aiter_lines())
    await eventually(lambda: ended(service))
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == paid


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("stream", [True, False])
async def test_what_is_erased_while_it_runs_is_cancelled(
    scripted: FakeProvider, start: Start, stream: bool, here: bool
) -> None:
    """Through this process or another one."""
    scripted.on_answer, scripted.on_stream = hang, hang_after_two
    service = await start()
    client = service.client(await service.create_user())
    asked = asyncio.create_task(client.post(PATH, json=chat(stream=stream)))

    async def is_asked() -> bool:
        return bool(scripted.asked)

    await eventually(is_asked)
    row = await service.prediction()
    if here:
        assert (await client.delete(f"/v1/predictions/{row.id}")).status_code == 204
    else:
        gone = update(predictions).where(predictions.c.id == row.id)
        await service.write(gone.values(input=None, erased_at=utc_now()))
    response = await asked
    if stream:
        *_, last = sse(response.text)
        assert last["error"]["code"] == "conflict"
    else:
        assert error_of(response) == (409, "conflict", None)
        # The official clients try a 409 again, which would pay once more.
        assert response.headers["x-should-retry"] == "false"
    await eventually(lambda: ended(service))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.output) == ("cancelled", None)
    assert scripted.cancelled == scripted.asked


async def test_another_users_stream_is_not_cancelled(scripted: FakeProvider, start: Start) -> None:
    scripted.on_stream = hang_after_two
    service = await start()
    client = service.client(await service.create_user())
    other = service.client(await service.create_user())
    async with client.stream("POST", PATH, json=chat(stream=True)) as response:
        path = f"/v1/predictions/{response.headers['X-Prediction-ID']}"
        assert error_of(await other.delete(path)) == (404, "not_found", None)
        assert (await client.get(path)).json()["status"] == "running"


async def test_a_stream_that_the_end_of_the_process_cuts_ends_with_an_error(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = hang_after_two
    service = await start()
    client = service.client(await service.create_user())
    async with client.stream("POST", PATH, json=chat(stream=True)) as response:
        lines = response.aiter_lines()
        begun = [await anext(lines)]
        for task in asyncio.all_tasks():  # What uvicorn does when the time to stop is over.
            if getattr(task.get_coro(), "__name__", "") == "run_asgi":
                task.cancel()
        *_, last = sse("\n".join([*begun, *[line async for line in lines]]))
    assert last["error"]["code"] == "generation_stopped"
    await eventually(lambda: ended(service))
    assert (await service.attempt()).state == "uncertain"
    assert "Traceback" not in service.log


async def test_a_client_that_leaves_while_the_result_is_reported_changes_nothing(
    start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cost is known, and its slot comes back."""
    add_plans(policy_dir, "single = {requests_per_minute = 6000, concurrent_generations = 1}")
    learning, going = asyncio.Event(), asyncio.Event()

    async def learn(*_: Any) -> None:
        learning.set()
        await going.wait()

    monkeypatch.setattr(CircuitBreaker, "record_quota", learn)
    service = await start()
    user = await service.create_user("single")
    async with service.client(user).stream("POST", PATH, json=chat(stream=True)) as response:
        await anext(response.aiter_lines())
        await learning.wait()
    await eventually(lambda: ended(service))
    assert (await service.attempt()).state == "settled"
    going.set()
    await eventually(lambda: passes(service, user))


async def test_a_client_that_leaves_before_the_first_chunk_ends_the_work(
    scripted: FakeProvider, start: Start
) -> None:
    asked = asyncio.Event()

    async def hang(request: ProviderRequest) -> Chunks:
        request.sent = True
        asked.set()
        await asyncio.Event().wait()
        yield []

    scripted.on_stream = hang
    service = await start()
    writer = await open_stream(service, await service.create_user())
    await asked.wait()
    writer.close()
    await eventually(lambda: ended(service))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("cancelled", "cancelled")
    assert scripted.cancelled == scripted.asked


async def test_nothing_is_asked_for_a_client_that_left_while_it_waited_for_budget(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, left = asyncio.Event(), asyncio.Event()

    async def block(*_: Any) -> bool:
        return False

    async def wait(*_: Any) -> None:
        waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    monkeypatch.setattr(Ledger, "_try_reserve", block)
    monkeypatch.setattr(Ledger, "_wait", wait)
    service = await start()
    writer = await open_stream(service, await service.create_user())
    await waiting.wait()
    writer.close()
    await asyncio.wait_for(left.wait(), 10)
    assert (scripted.asked, await service.rows_count()) == ([], 0)


async def test_the_deadline_passes_in_the_middle_of_a_stream(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = hang_after_two
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    response = await client.post(PATH, json=chat(stream=True))
    *chunks, last = sse(response.text)
    assert response.status_code == 200
    assert said(chunks) == "one two"
    assert (last["error"]["code"], last["error"]["param"]) == ("deadline_exceeded", None)
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "timeout")
    assert prediction.error == last["error"]
    assert scripted.cancelled == scripted.asked


async def test_the_deadline_passes_before_the_first_chunk(
    scripted: FakeProvider, start: Start
) -> None:
    async def hang(request: ProviderRequest) -> Chunks:
        request.sent = True
        await asyncio.Event().wait()
        yield []

    scripted.on_stream = hang
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    response = await client.post(PATH, json=chat(stream=True))
    assert error_of(response) == (504, "deadline_exceeded", None)
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "timeout")


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ProviderFailure("cut"), "provider_error"),
        (ProviderFailure("busy", status=429), "provider_cooling_down"),
    ],
    ids=str,
)
async def test_a_failure_in_the_middle_ends_without_done(
    scripted: FakeProvider, start: Start, failure: Exception, code: str
) -> None:
    scripted.on_stream = fail_after_one(failure)
    service = await start()
    client = service.client(await service.create_user())
    first, last = sse((await client.post(PATH, json=chat(stream=True))).text)
    assert said([first]) == "one"
    assert last["error"]["code"] == code
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "provider_error")
    assert prediction.output["choices"][0]["message"]["content"] == "one"
    assert prediction.error == last["error"]


async def test_a_crash_in_the_middle_cuts_the_stream(scripted: FakeProvider, start: Start) -> None:
    scripted.on_stream = fail_after_one(RuntimeError("canary"))
    service = await start()
    client = service.client(await service.create_user())
    with pytest.raises(httpx2.RemoteProtocolError):
        await client.post(PATH, json=chat(stream=True))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "provider_error")


async def test_chunks_that_arrive_together_are_sent_in_order(
    scripted: FakeProvider, start: Start
) -> None:
    words = [f" {number}" for number in range(500)]

    async def burst(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk(word) for word in words[:300]]
        yield [chunk(word) for word in words[300:]] + [usage_chunk(USAGE)]

    scripted.on_stream = burst
    service = await start()
    client = service.client(await service.create_user())
    *chunks, done = sse((await client.post(PATH, json=chat(stream=True))).text)
    assert said(chunks) == "".join(words)
    assert len(chunks) == len(words)
    assert done == "[DONE]"
    prediction = await service.prediction()
    assert prediction.output["choices"][0]["message"]["content"] == "".join(words)


async def test_a_stream_without_a_chunk_is_an_empty_answer(
    scripted: FakeProvider, start: Start
) -> None:
    async def nothing(request: ProviderRequest) -> Chunks:
        request.sent = True
        none: list[list[Body]] = []
        for chunks in none:
            yield chunks

    scripted.on_stream = nothing
    service = await start()
    client = service.client(await service.create_user())
    assert sse((await client.post(PATH, json=chat(stream=True))).text) == ["[DONE]"]
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("succeeded", "empty")


async def test_a_client_that_does_not_read_holds_up_the_provider_until_time_is_up(
    scripted: FakeProvider, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.event_stream.END_SECONDS", 0.2)
    sent = 0

    async def flood(request: ProviderRequest) -> Chunks:
        nonlocal sent
        request.sent = True
        while True:
            sent += 1
            yield [chunk("x" * 2**20)]
            await asyncio.sleep(0)

    scripted.on_stream = flood
    service = await start(request_deadline_seconds=1)
    user = await service.create_user()
    writer = await open_stream(service, user)
    try:
        await eventually(lambda: ended(service))
    finally:
        writer.transport.abort()
    # What the operating system buffers, and not a second of work.
    assert 0 < sent < 100
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert prediction.outcome in {"timeout", "cancelled"}


@pytest.mark.parametrize("keep", [True, False])
async def test_what_was_written_before_the_client_left_is_kept_if_wanted(
    scripted: FakeProvider, start: Start, keep: bool
) -> None:
    scripted.on_stream = stream_fine
    service = await start(store_content=keep)
    client = service.client(await service.create_user())
    await client.post(PATH, json=chat(stream=True))
    prediction = await service.prediction()
    assert (prediction.input is not None) == (prediction.output is not None) == keep
