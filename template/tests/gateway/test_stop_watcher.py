"""Stops cancel running calls, and an exceeded maximum quarantines its model."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import delete

from gateway.accounts.principals import Role
from gateway.db.tables import alerts, attempts, stops
from gateway.pipeline.stop_watcher import StopWatcher
from gateway.providers.base import Chunks, ProviderRequest, Reply, Usage
from tests.fake_provider import MAX_COST, USAGE, FakeProvider, chunk, completion, hang, usage_chunk
from tests.fixtures.service import Start
from tests.ledger_helpers import check_accounts
from tests.support import Service, chat, error_of, eventually, said, sse, write_policy

CHAT = "/v1/chat/completions"
ECHO = "model:offline/echo"
# Another model, which hangs as well.
OTHER = """
[models."offline/other"]
provider = "offline"
name = "other"
kind = "chat"
input_usd_per_million_tokens = 1
cache_write_usd_per_million_tokens = 1
output_usd_per_million_tokens = 1
max_output_tokens = 64
max_input_tokens = 2000
prices_checked = 2026-11-01
attempts = 1
"""
STOPPED = (503, "generation_stopped", None)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    """Hangs, in a stream after its first chunk."""
    scripted = FakeProvider.install(monkeypatch)
    scripted.on_answer, scripted.on_stream = hang, hang_after_one
    return scripted


@pytest.fixture
async def service(
    scripted: FakeProvider, start: Start, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Service:
    monkeypatch.setattr("gateway.pipeline.stop_watcher.POLL_SECONDS", 0.02)
    write_policy(policy_dir, OTHER)
    return await start()


@pytest.fixture
async def admin(service: Service) -> httpx2.AsyncClient:
    return service.client(await service.create_user(role=Role.ADMIN))


async def hang_after_one(request: ProviderRequest) -> Chunks:
    request.sent = True
    yield [chunk("one")]
    await asyncio.Event().wait()


async def say_fine(request: ProviderRequest) -> Reply:
    request.sent = True
    return Reply(completion("fine"), Usage(2, 5))


def asked(scripted: FakeProvider, calls: int) -> Callable[[], Any]:
    async def poll() -> bool:
        return len(scripted.asked) == calls

    return poll


async def running(
    scripted: FakeProvider, client: httpx2.AsyncClient, *models: str, stream: bool = False
) -> list[asyncio.Task[httpx2.Response]]:
    """A call of each of `models` that the provider has begun to answer."""
    before = len(scripted.asked)
    bodies = [chat(model=model, stream=stream) for model in models]
    calls = [asyncio.create_task(client.post(CHAT, json=body)) for body in bodies]
    await eventually(asked(scripted, before + len(models)))
    return calls


@pytest.mark.parametrize("target", ["service", "provider:offline", ECHO])
async def test_what_runs_is_ended_if_asked_for(
    service: Service,
    scripted: FakeProvider,
    client: httpx2.AsyncClient,
    admin: httpx2.AsyncClient,
    target: str,
) -> None:
    (call,) = await running(scripted, client, "offline/echo")
    stop = {"reason": "why", "target": target, "running": True}
    assert (await admin.post("/v1/admin/stop", json=stop)).status_code == 200
    ended = await call
    assert error_of(ended) == STOPPED
    assert "operator" in ended.json()["error"]["message"]
    assert scripted.cancelled == scripted.asked
    # Its cost is unknown.
    assert await service.books() == ("uncertain", "cancelled")
    assert (await service.attempt()).cost_nano_usd == MAX_COST
    assert (await service.prediction()).status == "cancelled"
    assert error_of(await client.post(CHAT, json=chat())) == STOPPED
    await check_accounts(service)
    await admin.post("/v1/admin/start", json={"target": target})
    scripted.on_answer = say_fine
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_a_stream_that_is_stopped_ends_with_an_error(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    (call,) = await running(scripted, client, "offline/echo", stream=True)
    await admin.post("/v1/admin/stop", json={"reason": "why", "running": True})
    first, last = sse((await call).text)
    assert first["choices"][0]["delta"]["content"] == "one"
    assert last["error"]["code"] == "generation_stopped"
    assert await service.books() == ("uncertain", "cancelled")


async def test_a_stream_that_has_not_begun_is_refused(
    scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    async def never(request: ProviderRequest) -> Chunks:
        await hang(request)
        yield []

    scripted.on_stream = never
    (call,) = await running(scripted, client, "offline/echo", stream=True)
    await admin.post("/v1/admin/stop", json={"reason": "why", "running": True})
    assert error_of(await call) == STOPPED


async def test_others_go_on(
    scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    going = asyncio.Event()

    async def wait(request: ProviderRequest) -> Reply:
        await going.wait()
        return await say_fine(request)

    scripted.on_answer = wait
    stopped, other = await running(scripted, client, "offline/echo", "offline/other")
    stop = {"reason": "why", "target": ECHO, "running": True}
    await admin.post("/v1/admin/stop", json=stop)
    assert error_of(await stopped) == STOPPED
    assert error_of(await client.post(CHAT, json=chat())) == STOPPED
    going.set()
    assert (await other).status_code == 200
    assert (await client.post(CHAT, json=chat(model="offline/other"))).status_code == 200


async def test_other_streams_go_on(
    scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    going = asyncio.Event()

    async def wait_after_one(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("one")]
        await going.wait()
        yield [chunk(" two", "stop"), usage_chunk(USAGE)]

    scripted.on_stream = wait_after_one
    stopped, other = await running(scripted, client, "offline/echo", "offline/other", stream=True)
    await admin.post("/v1/admin/stop", json={"reason": "why", "target": ECHO, "running": True})
    assert sse((await stopped).text)[-1]["error"]["code"] == "generation_stopped"
    going.set()
    *chunks, last = sse((await other).text)
    assert (said(chunks), last) == ("one two", "[DONE]")


async def test_what_runs_goes_on_unless_asked_for(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    going = asyncio.Event()

    async def wait(request: ProviderRequest) -> Reply:
        await going.wait()
        return await say_fine(request)

    scripted.on_answer = wait
    (call,) = await running(scripted, client, "offline/echo")
    await admin.post("/v1/admin/stop", json={"reason": "why"})
    assert error_of(await client.post(CHAT, json=chat())) == STOPPED
    watch: StopWatcher = service.engine.stop_watcher
    await watch.poll()
    going.set()
    assert (await call).status_code == 200


async def test_an_exceeded_maximum_is_paid_in_full_and_quarantines_the_model(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    async def overshoot(request: ProviderRequest) -> Reply:
        request.sent = True
        return Reply(completion("much"), Usage(2, 1_000_000))

    cost = 2 * 250 + 1_000_000 * 2000
    scripted.on_answer = overshoot
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert (await service.attempt()).cost_nano_usd == cost
    (alert,) = await service.rows(alerts)
    assert (alert.kind, alert.details) == (
        "bound",
        {"model": "offline/echo", "bound_nano_usd": MAX_COST, "cost_nano_usd": cost},
    )
    refused = await client.post(CHAT, json=chat())
    assert error_of(refused) == STOPPED
    assert "exceeded its maximum" in refused.json()["error"]["message"]
    listed = (await admin.get("/v1/admin/providers")).json()
    assert {each["model"] for each in listed if each["state"] == "quarantined"} == {"offline/echo"}
    scripted.on_answer = say_fine
    assert (await client.post(CHAT, json=chat(model="offline/other"))).status_code == 200
    await admin.post("/v1/admin/start", json={"target": ECHO})
    assert (await client.post(CHAT, json=chat())).status_code == 200
    await check_accounts(service)


@pytest.mark.parametrize("stream", [False, True])
async def test_more_output_than_requested_quarantines_the_model_at_any_cost(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient, stream: bool
) -> None:
    """The maximum of the input is far above the usage of most requests."""
    used = Usage(1, 9)

    async def overshoot(request: ProviderRequest) -> Reply:
        request.sent = True
        return Reply(completion("much"), used)

    async def overshoot_in_chunks(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("much", "stop"), usage_chunk(used)]

    scripted.on_answer, scripted.on_stream = overshoot, overshoot_in_chunks
    answer = await client.post(CHAT, json=chat(max_tokens=9, stream=stream))
    assert answer.status_code == 200
    assert await service.rows(alerts) == []
    answer = await client.post(CHAT, json=chat(max_tokens=8, stream=stream))
    assert answer.status_code == 200
    _, attempt = await service.rows(attempts)
    assert attempt.cost_nano_usd == 250 + 9 * 2000 < attempt.bound_nano_usd
    (stop,) = await service.database.fetch(stops.select())
    assert (stop.target, stop.kind) == (ECHO, "quarantined")
    assert stop.reason == "A call wrote 9 output tokens, and its maximum was 8."
    assert [row.kind for row in await service.rows(alerts)] == ["bound"]
    assert error_of(await client.post(CHAT, json=chat())) == STOPPED
    await check_accounts(service)


async def test_calls_that_exceed_the_maximum_together_are_one_quarantine_and_one_alert(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient
) -> None:
    going = asyncio.Event()

    async def overshoot(_: ProviderRequest) -> Reply:
        await going.wait()
        return Reply(completion("much"), Usage(2, 1_000_000))

    scripted.on_answer = overshoot
    calls = await running(scripted, client, *["offline/echo"] * 4)
    going.set()
    assert {(await call).status_code for call in calls} == {200}
    assert len(await service.database.fetch(stops.select())) == 1
    assert len(await service.rows(alerts)) == 1
    # Broken again on the same day: again no new calls, and no second alert.
    await service.write(delete(stops))
    await client.post(CHAT, json=chat())
    assert [row.kind for row in await service.database.fetch(stops.select())] == ["quarantined"]
    assert len(await service.rows(alerts)) == 1
    assert {row.state for row in await service.rows(attempts)} == {"settled"}


async def test_a_running_call_can_exceed_the_maximum_again(
    service: Service, scripted: FakeProvider, client: httpx2.AsyncClient, admin: httpx2.AsyncClient
) -> None:
    """Of a model that is quarantined already, and of one that a person has stopped."""
    turns = asyncio.Semaphore(0)

    async def overshoot(_: ProviderRequest) -> Reply:
        await turns.acquire()
        return Reply(completion("much"), Usage(2, 1_000_000))

    scripted.on_answer = overshoot
    calls = await running(scripted, client, *["offline/echo"] * 3)
    await admin.post("/v1/admin/stop", json={"reason": "why", "target": ECHO})
    for ended in range(1, 4):
        turns.release()
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        (call,) = (call for call in calls if call.done())
        calls.remove(call)
        assert (await call).status_code == 200
        rows = await service.database.fetch(stops.select())
        assert {(row.target, row.kind) for row in rows} == {
            (ECHO, "stopped"),
            (ECHO, "quarantined"),
        }
        states = [row.state for row in await service.rows(attempts)]
        assert states.count("settled") == ended
    await check_accounts(service)
