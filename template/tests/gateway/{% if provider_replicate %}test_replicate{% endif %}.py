"""Replicate: creates, polls and cancels predictions, which are billed by the second."""

import asyncio
import json
from typing import Any

import httpx2
import pytest

from gateway.errors import DatabaseUnavailable
from gateway.ledger.ledger import Ledger
from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.support import SOON_SECONDS, Service, describe, error_of, eventually
from tests.upstream import answering

BODY = {"model": "replicate/official", "input": {"prompt": "one two", "webhook": "kept"}}
BY_OUTPUT = "replicate/images"
LATER = {"Prefer": "respond-async"}
OUTPUT = ["You", " said:", " one", " two"]
COST, BOUND = 1_500_000 * 1.5, 1_500_000 * 60
FAILED = (502, "provider_error", None)
BUSY = (503, "provider_cooling_down", None)
NO_ACCOUNT = (503, "provider_quota_exceeded", None)
WRONG = (422, "invalid_request", None)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Poll with a very short pause."""
    monkeypatch.setattr("gateway.providers.replicate.FIRST_PAUSE_SECONDS", 0.001)


async def ask(client: httpx2.AsyncClient) -> httpx2.Response:
    return await client.post("/v1/predictions", json=BODY)


async def test_an_official_model_is_waited_for(
    service: Service, client: httpx2.AsyncClient
) -> None:
    record = (await ask(client)).json()
    assert (record["status"], record["output"]) == ("succeeded", OUTPUT)
    used = {name: amount for name, amount in record["usage"].items() if amount}
    assert used == {"seconds": 1.5}
    (call,) = service.simulator.calls
    assert call.path == "/v1/models/acme/official/predictions"
    assert call.body == {"input": BODY["input"]}
    token = service.settings.replicate_api_token.get_secret_value()
    assert call.headers["authorization"] == f"Bearer {token}"
    assert call.headers["prefer"].startswith("wait=")
    assert await service.books() == ("settled", "ok")
    attempt = await service.attempt()
    assert (attempt.cost_nano_usd, attempt.bound_nano_usd) == (COST, BOUND)
    assert attempt.remote_id == "sim00000001"


async def test_a_model_that_is_billed_by_outputs(
    service: Service, client: httpx2.AsyncClient
) -> None:
    record = (await client.post("/v1/predictions", json=BODY | {"model": BY_OUTPUT})).json()
    used = {name: amount for name, amount in record["usage"].items() if amount}
    assert used == {"seconds": 1.5, "outputs": len(OUTPUT)}
    attempt = await service.attempt()
    assert attempt.cost_nano_usd == len(OUTPUT) * 3_000_000
    assert attempt.bound_nano_usd == 4 * 3_000_000
    assert attempt.remote_id == "sim00000001"
    assert int(service.simulator.calls[0].headers["cancel-after"].rstrip("s")) <= 60


async def test_the_outputs_that_replicate_counts_are_billed(start: Start) -> None:
    prediction = {"id": "p1", "status": "succeeded", "output": "one.zip"}
    counted = {**prediction, "metrics": {"image_count": 3}}
    async with answering(lambda _: counted) as url:
        service = await start(replicate_base_url=url)
        client = service.client(await service.create_user())
        body = {"model": BY_OUTPUT, "input": {"num_outputs": 3}}
        record = (await client.post("/v1/predictions", json=body)).json()
    assert (record["usage"]["outputs"], record["cost_nano_usd"]) == (3, 9_000_000)
    assert (await service.attempt()).bound_nano_usd == 9_000_000


@pytest.mark.parametrize("strange", [True, "1_0", 3.9, 10**30, -1])
async def test_a_strange_number_of_outputs_is_paid_at_the_bound(start: Start, strange: Any) -> None:
    prediction = {"id": "p1", "status": "succeeded", "output": "one.zip"}
    counted = {**prediction, "metrics": {"image_count": strange}}
    async with answering(lambda _: counted) as url:
        service = await start(replicate_base_url=url)
        client = service.client(await service.create_user())
        body = {"model": BY_OUTPUT, "input": {"num_outputs": 3}}
        assert (await client.post("/v1/predictions", json=body)).status_code == 201
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", 9_000_000)


async def test_a_version_is_named(service: Service, client: httpx2.AsyncClient) -> None:
    body = BODY | {"model": "replicate/version"}
    record = (await client.post("/v1/predictions", json=body)).json()
    assert record["status"] == "succeeded"
    (call,) = service.simulator.calls
    assert call.path == "/v1/predictions"
    assert call.body is not None
    assert call.body["version"] == "5c7d5dc6"


@pytest.mark.parametrize("kind", ["cold", "early"])
async def test_a_prediction_longer_than_the_wait_is_polled(
    service: Service, client: httpx2.AsyncClient, kind: str
) -> None:
    service.simulator.inject(Fault.model_validate({"kind": kind}))
    assert (await ask(client)).json()["output"] == OUTPUT
    assert {call.path for call in service.simulator.calls[1:]} == {"/v1/predictions/sim00000001"}
    assert await service.books() == ("settled", "ok")


@pytest.mark.parametrize(
    ("seconds", "headers", "expected"),
    [(20, {}, "20s"), (20, LATER, "60s"), (90, {}, "60s"), (90, LATER, "60s")],
)
async def test_it_cancels_itself_when_its_time_is_up(
    start: Start, seconds: int, headers: dict[str, str], expected: str
) -> None:
    """Cancelled at the deadline of the request, or at `max_seconds` if that is earlier."""
    service = await start(request_deadline_seconds=seconds)
    client = service.client(await service.create_user())
    await client.post("/v1/predictions", json=BODY, headers=headers)
    await eventually(service.is_settled)
    assert service.simulator.calls[0].headers["cancel-after"] == expected


@pytest.mark.parametrize(
    ("fault", "error", "state"),
    [
        (Fault(kind="rate_limited"), BUSY, "released"),
        (Fault(kind="overloaded"), BUSY, "uncertain"),
        (Fault(kind="quota"), NO_ACCOUNT, "released"),
        (Fault(kind="bad_request"), WRONG, "released"),
        (Fault(kind="unauthorized"), NO_ACCOUNT, "released"),
        (Fault(kind="error"), FAILED, "uncertain"),
        (Fault(kind="redirect"), FAILED, "uncertain"),
        (Fault(kind="drop"), FAILED, "uncertain"),
        (Fault(kind="cut"), FAILED, "uncertain"),
        (Fault(kind="malformed"), FAILED, "uncertain"),
        (Fault(kind="failed"), FAILED, "settled"),
        (Fault(kind="canceled"), FAILED, "settled"),
        (Fault(kind="aborted"), FAILED, "settled"),
        (Fault(kind="error", method="GET", status=404), FAILED, "settled"),
        (Fault(kind="malformed", method="GET"), FAILED, "settled"),
    ],
    ids=describe,
)
async def test_failures(
    service: Service,
    client: httpx2.AsyncClient,
    fault: Fault,
    error: tuple[int, str, None],
    state: str,
) -> None:
    # Only what outlasts the wait is polled.
    service.simulator.inject(*[Fault(kind="cold")] * (fault.method == "GET"), fault)
    response = await ask(client)
    assert error_of(response) == error
    assert await service.books() == (state, "provider_error")
    assert not any(call.provider == "elsewhere" for call in service.simulator.calls)
    # What was begun and may still run is ended.
    is_cancelled = service.simulator.calls[-1].path.endswith("/cancel")
    assert is_cancelled is (fault.method == "GET")


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="error", method="GET"),
        Fault(kind="rate_limited", method="GET", seconds=0),
        Fault(kind="cut", method="GET"),
    ],
    ids=describe,
)
async def test_a_poll_that_fails_is_repeated(
    service: Service, client: httpx2.AsyncClient, fault: Fault
) -> None:
    service.simulator.inject(Fault(kind="cold"), fault)
    assert (await ask(client)).json()["output"] == OUTPUT
    assert await service.books() == ("settled", "ok")


async def test_polls_obey_retry_after(start: Start) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="cold"), Fault(kind="rate_limited", method="GET"))
    assert error_of(await ask(client)) == (504, "deadline_exceeded", None)
    paths = [call.path.rpartition("/")[2] for call in service.simulator.calls]
    assert paths == ["predictions", "sim00000001", "cancel"]


async def test_work_that_could_not_be_noted_is_cancelled(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> None:
        raise DatabaseUnavailable("Gone.", retry_after=1)

    monkeypatch.setattr(Ledger, "renew", gone)
    service.simulator.inject(Fault(kind="endless"))
    assert error_of(await ask(client)) == (503, "database_unavailable", None)
    assert service.simulator.calls[-1].path.endswith("/cancel")
    assert await service.books() == ("settled", "provider_error")


async def test_a_foreign_address_is_not_followed(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token is not sent there either: polls go to the provider's configured address."""
    monkeypatch.setattr("tests.simulator.replicate._waits", lambda _: False)
    service.simulator.inject(Fault(kind="foreign_url"))
    assert (await ask(client)).status_code == 201
    assert {call.provider for call in service.simulator.calls} == {"replicate"}
    assert await service.books() == ("settled", "ok")


async def test_the_throttles_text_says_how_long(
    service: Service, client: httpx2.AsyncClient
) -> None:
    service.simulator.inject(Fault(kind="rate_limited", retry_after="absent", seconds=25))
    assert (await ask(client)).headers["Retry-After"] == "25"


@pytest.mark.parametrize(
    ("kind", "state", "outcome"),
    [
        ("empty", "settled", "empty"),
        ("no_usage", "uncertain", "ok"),
        ("full_usage", "settled", "ok"),
        ("excess_usage", "settled", "ok"),
    ],
)
async def test_contents(
    service: Service, client: httpx2.AsyncClient, kind: str, state: str, outcome: str
) -> None:
    service.simulator.inject(Fault.model_validate({"kind": kind}))
    assert (await ask(client)).status_code == 201
    assert await service.books() == (state, outcome)


async def test_endless_work_is_cancelled_at_the_deadline(start: Start) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="endless"))
    assert error_of(await ask(client)) == (504, "deadline_exceeded", None)
    assert service.simulator.calls[-1].path.endswith("/cancel")
    _, outcome = await service.books()
    assert outcome == "timeout"


async def test_work_that_cannot_be_cancelled_is_paid_at_its_bound(start: Start) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="endless"), Fault(kind="error", path="*/cancel"))
    assert error_of(await ask(client)) == (504, "deadline_exceeded", None)
    assert await service.books() == ("uncertain", "timeout")


async def test_a_connection_lost_while_it_runs_does_not_make_it_free(start: Start) -> None:
    """The prediction goes on after a poll that cannot connect."""
    service = await start(request_deadline_seconds=2 * SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="endless"))
    asked = asyncio.create_task(ask(client))
    await eventually(lambda: _has_polled(service))
    await service.simulator.stop()
    assert error_of(await asked) == (504, "deadline_exceeded", None)
    assert await service.books() == ("uncertain", "timeout")


async def test_erasing_cancels_what_runs(service: Service, client: httpx2.AsyncClient) -> None:
    service.simulator.inject(Fault(kind="endless"))
    response = await client.post("/v1/predictions", json=BODY, headers=LATER)
    await eventually(lambda: _has_polled(service))
    assert (await client.delete(response.headers["Location"])).status_code == 204
    assert service.simulator.calls[-1].path.endswith("/cancel")
    _, outcome = await service.books()
    assert outcome == "cancelled"
    prediction = await service.prediction()
    assert (prediction.status, prediction.input) == ("cancelled", None)


@pytest.mark.parametrize("kind", ["failed", "cold"])
async def test_later_is_polled_to_its_end(
    service: Service, client: httpx2.AsyncClient, kind: str
) -> None:
    service.simulator.inject(Fault.model_validate({"kind": kind}))
    response = await client.post("/v1/predictions", json=BODY, headers=LATER)
    assert response.status_code == 202
    await eventually(service.is_settled)
    record: dict[str, Any] = (await client.get(response.headers["Location"])).json()
    if kind == "cold":
        assert (record["status"], record["output"]) == ("succeeded", OUTPUT)
    else:
        assert (record["status"], record["error"]["code"]) == ("failed", "provider_error")


async def test_when_the_service_stops_what_runs_is_cancelled(start: Start) -> None:
    first = await start()
    user = await first.create_user()
    first.simulator.inject(Fault(kind="endless"))
    await first.client(user).post("/v1/predictions", json=BODY, headers=LATER)
    await eventually(lambda: _has_polled(first))
    await first.stop()
    assert first.simulator.calls[-1].path.endswith("/cancel")
    second = await start()
    assert await second.books() == ("settled", "cancelled")


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"status": "succeeded"},
        {"id": 5, "status": []},
        {"id": "../../models", "status": "succeeded"},
        {"id": "x" * 201, "status": "succeeded"},
        {"id": "x", "status": []},
    ],
    ids=str,
)
async def test_nonsense(start: Start, answer: Any) -> None:
    async with answering(lambda _: answer) as url:
        service = await start(replicate_base_url=url)
        response = await ask(service.client(await service.create_user()))
    assert error_of(response) == FAILED
    assert await service.books() == ("uncertain", "provider_error")


async def test_an_output_is_json_that_any_parser_takes(start: Start) -> None:
    """For the client, in the record, and as it is read later."""
    output = b'[NaN, -Infinity, 1e999, 1, "\\ud83d"]'
    answer = b'{"id": "x", "status": "succeeded", "output": %b}' % output
    expected = [None, None, None, 1, "\ufffd"]
    async with answering(lambda _: answer) as url:
        service = await start(replicate_base_url=url)
        client = service.client(await service.create_user())
        response = await ask(client)
    record = await client.get(f"/v1/predictions/{response.json()['id']}")
    for text in (response.text, record.text):
        assert json.loads(text, parse_constant=pytest.fail)["output"] == expected


@pytest.mark.parametrize(
    "seconds", [-1, "many", None, 1e300, [], float("inf"), float("nan"), True, "1_0", "2"]
)
async def test_nonsense_seconds_are_paid_at_the_bound(start: Start, seconds: Any) -> None:
    answer = {"id": "x", "status": "succeeded", "metrics": {"predict_time": seconds}}
    async with answering(lambda _: answer) as url:
        service = await start(replicate_base_url=url)
        assert (await ask(service.client(await service.create_user()))).status_code == 201
    assert (await service.attempt()).cost_nano_usd == BOUND


async def test_replicate_itself_needs_a_token(start: Start) -> None:
    base_url = "https://api.replicate.com/v1"
    service = await start(replicate_base_url=base_url, replicate_api_token="")
    response = await ask(service.client(await service.create_user()))
    assert error_of(response) == FAILED
    assert "REPLICATE_API_TOKEN" in response.json()["error"]["message"]
    assert await service.rows_count() == 0


async def _has_polled(service: Service) -> bool:
    return any(call.method == "GET" for call in service.simulator.calls)
