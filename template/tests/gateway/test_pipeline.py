"""The gateway's path: what is refused before a provider, and how an attempt ends after it."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.db.tables import attempts
from gateway.errors import GenerationStopped
from gateway.providers.base import Deadline, ProviderFailure, ProviderRequest, Reply, Usage
from tests.fake_provider import COST, MAX_COST, FakeProvider, completion, fail_with, hang
from tests.fixtures.service import Start
from tests.support import SOON_SECONDS, Service, chat, error_of, eventually, write_policy

PATH = "/v1/chat/completions"
NO_ACCOUNT = (503, "provider_quota_exceeded")
LATER = {"Prefer": "respond-async"}
# A chat that is billed by time.
BY_THE_SECOND = """
[models."offline/compute"]
provider = "offline"
name = "compute"
kind = "task"
usd_per_second = 0.001
max_seconds = 1
prices_checked = 2026-11-01
"""
PROMPT = {"model": "offline/echo", "input": {"messages": chat()["messages"]}}


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


@pytest.fixture
async def scripted_client(
    scripted: FakeProvider, start: Start
) -> tuple[Service, httpx2.AsyncClient]:
    """The service with a fake provider, and a client."""
    service = await start(request_deadline_seconds=30)
    return service, service.client(await service.create_user())


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_without_its_key_is_not_called(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient], stream: bool
) -> None:
    service, client = scripted_client
    scripted.lacks = "SOME_API_KEY"
    response = await client.post(PATH, json=chat(stream=stream))
    assert error_of(response) == (502, "provider_error", None)
    assert "SOME_API_KEY" in response.json()["error"]["message"]
    assert scripted.asked == []
    assert await service.rows_count() == 0


async def test_a_kind_that_the_provider_does_not_offer(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    _, client = scripted_client
    body = {"model": "offline/embedding", "input": "one"}
    response = await client.post("/v1/embeddings", json=body)
    assert error_of(response) == (400, "invalid_request", "model")


async def test_the_attempt_is_durable_before_the_provider_is_asked(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    seen = []

    async def look(request: ProviderRequest) -> Reply:
        seen.append((await service.attempt(), await service.prediction()))
        return Reply(completion("fine"), Usage(2, 5))

    scripted.on_answer = look
    response = await client.post(PATH, json=chat())
    ((attempt, prediction),) = seen
    assert (attempt.state, attempt.bound_nano_usd, attempt.cost_nano_usd) == (
        "reserved",
        MAX_COST,
        0,
    )
    assert (prediction.status, prediction.outcome) == ("running", None)
    assert response.headers["X-Prediction-ID"] == prediction.id == attempt.prediction_id
    assert (await service.attempt()).state == "settled"


@pytest.mark.parametrize(
    ("details", "status", "code", "state", "cost"),
    [
        ({"sent": False}, 502, "provider_error", "released", 0),
        ({"sent": True}, 502, "provider_error", "uncertain", MAX_COST),
        ({"sent": True, "status": 500}, 502, "provider_error", "uncertain", MAX_COST),
        ({"sent": True, "status": 404, "billed": False}, 502, "provider_error", "released", 0),
        ({"sent": True, "status": 403, "billed": False}, *NO_ACCOUNT, "released", 0),
        ({"sent": True, "usage": Usage(2, 5)}, 502, "provider_error", "settled", COST),
        ({"sent": True, "usage": Usage()}, 502, "provider_error", "settled", 0),
        (
            {"sent": True, "status": 400, "billed": False, "param": "temperature"},
            400,
            "invalid_request",
            "released",
            0,
        ),
    ],
)
async def test_failures(
    scripted: FakeProvider,
    scripted_client: tuple[Service, httpx2.AsyncClient],
    details: dict[str, Any],
    status: int,
    code: str,
    state: str,
    cost: int,
) -> None:
    service, client = scripted_client
    scripted.on_answer = fail_with(**details)
    response = await client.post(PATH, json=chat(temperature=1))
    assert error_of(response) == (status, code, details.get("param"))
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == (state, cost)
    assert (prediction.status, prediction.outcome) == ("failed", "provider_error")
    assert prediction.cost_nano_usd == cost
    assert prediction.error == response.json()["error"]
    assert response.headers["X-Prediction-ID"] == prediction.id
    assert response.headers["x-ratelimit-limit-requests"]


@pytest.mark.parametrize(
    ("details", "pause"),
    [
        ({"status": 429}, "5"),
        ({"status": 429, "retry_after": 2.1}, "3"),
        ({"status": 503, "retry_after": 30.0}, "30"),
        ({"status": 503, "retry_after": 0.001}, "1"),
    ],
)
async def test_a_busy_provider_says_when_to_come_back(
    scripted: FakeProvider,
    scripted_client: tuple[Service, httpx2.AsyncClient],
    details: dict[str, Any],
    pause: str,
) -> None:
    _, client = scripted_client
    scripted.on_answer = fail_with(sent=True, **details)
    response = await client.post(PATH, json=chat())
    assert error_of(response) == (503, "provider_cooling_down", None)
    assert response.headers["Retry-After"] == pause


async def test_a_crash_in_an_adapter_is_paid_at_the_maximum_and_shown_to_no_client(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client

    async def crash(request: ProviderRequest) -> Reply:
        request.sent = True
        raise RuntimeError("canary")

    scripted.on_answer = crash
    response = await client.post(PATH, json=chat())
    assert error_of(response) == (500, "internal_error", None)
    assert "canary" not in response.text
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "provider_error")


async def test_an_answer_without_usage_is_paid_at_the_bound(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        return Reply(completion("fine"), None)

    scripted.on_answer = answer
    assert (await client.post(PATH, json=chat())).status_code == 200
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("succeeded", "ok")
    assert prediction.cost_nano_usd == MAX_COST


async def test_more_usage_than_the_maximum_is_paid_in_full(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client

    async def answer(_: ProviderRequest) -> Reply:
        return Reply(completion("fine"), Usage(2, 1_000_000))

    scripted.on_answer = answer
    await client.post(PATH, json=chat())
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == ("settled", 2 * 250 + 1_000_000 * 2000)


TROUBLES = [None, ProviderFailure("no"), TimeoutError(), ArithmeticError("a bug")]


@pytest.mark.parametrize("trouble", TROUBLES, ids=repr)
async def test_the_deadline(
    scripted: FakeProvider, start: Start, trouble: Exception | None
) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    scripted.on_answer, scripted.cancel_error = hang, trouble
    response = await client.post(PATH, json=chat())
    assert error_of(response) == (504, "deadline_exceeded", None)
    assert f"{SOON_SECONDS:g}" in response.json()["error"]["message"]
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("failed", "timeout")
    assert scripted.cancelled == scripted.asked
    assert ("ArithmeticError: a bug" in service.log) is isinstance(trouble, ArithmeticError)


async def test_the_deadline_before_a_byte_left_costs_nothing(
    scripted: FakeProvider, start: Start
) -> None:
    service = await start(request_deadline_seconds=0.05)
    client = service.client(await service.create_user())

    async def wait(_: ProviderRequest) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("this event is never set")

    scripted.on_answer = wait
    assert (await client.post(PATH, json=chat())).status_code == 504
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == ("released", 0)


async def test_compute_ends_when_no_more_of_it_is_paid_for(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    write_policy(policy_dir, BY_THE_SECOND)
    scripted.billed_by_time, scripted.parameters = frozenset({"task"}), {"chat": None, "task": None}
    scripted.on_answer = hang
    service = await start()
    client = service.client(await service.create_user())
    body = {"model": "offline/compute", "input": {"seconds": 60}}
    response = await client.post("/v1/predictions", json=body)
    assert error_of(response) == (504, "deadline_exceeded", None)
    assert "within 1 s" in response.json()["error"]["message"]
    assert await service.books() == ("uncertain", "timeout")
    assert scripted.cancelled == scripted.asked


async def test_a_deadline_within_another_is_cut_with_it() -> None:
    whole, reason = Deadline(60), GenerationStopped("enough")
    part = whole.within(30)
    assert (part.seconds, whole.within(90)) == (30, whole)

    async def work() -> None:
        async with part.scope():
            whole.cancel(reason)
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await work()
    assert part.passed
    assert part.cancelled_by is reason


async def test_erasing_what_runs_cancels_it(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    scripted.on_answer = hang
    response = await client.post("/v1/predictions", json=PROMPT, headers=LATER)

    async def asked() -> bool:
        return bool(scripted.asked)

    await eventually(asked)
    assert (await client.delete(response.headers["Location"])).status_code == 204
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", MAX_COST)
    assert (prediction.status, prediction.outcome) == ("cancelled", "cancelled")
    assert (prediction.input, prediction.output, prediction.error) == (None, None, None)
    assert scripted.cancelled == scripted.asked


async def test_a_failure_later_is_read_from_the_record(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    service, client = scripted_client
    scripted.on_answer = fail_with(sent=True, status=429, billed=False)
    response = await client.post("/v1/predictions", json=PROMPT, headers=LATER)

    async def ended() -> bool:
        return bool((await service.prediction()).status != "running")

    await eventually(ended)
    record = (await client.get(response.headers["Location"])).json()
    assert (record["status"], record["outcome"]) == ("failed", "provider_error")
    assert record["error"]["code"] == "provider_cooling_down"
    assert record["cost_nano_usd"] == 0


async def test_each_attempt_keeps_the_price_that_it_was_made_at(
    start: Start, settings: dict[str, Any]
) -> None:
    first = await start()
    user = await first.create_user()
    await first.client(user).post(PATH, json=chat())
    await first.stop()
    models = settings["policy_dir"] / "models.toml"
    models.write_text(models.read_text("utf-8").replace("= 0.25", "= 0.5"), "utf-8")
    second = await start()
    await second.client(user).post(PATH, json=chat())
    before, after = await second.rows(attempts)
    assert (before.price["input"], after.price["input"]) == (250_000_000, 500_000_000)
    assert after.bound_nano_usd - before.bound_nano_usd == 250 * (len("userone two") + 8 + 16)


async def test_the_provider_is_given_what_was_asked_and_no_more(
    scripted: FakeProvider, scripted_client: tuple[Service, httpx2.AsyncClient]
) -> None:
    _, client = scripted_client
    await client.post(PATH, json=chat(temperature=0.5, stream=False, seed=None))
    (request,) = scripted.asked
    assert request.body == {"messages": chat()["messages"], "temperature": 0.5}
    assert 0 < request.deadline.remaining <= 30
