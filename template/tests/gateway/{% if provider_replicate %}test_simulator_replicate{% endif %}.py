"""The official Replicate client takes the simulator for Replicate."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from aiohttp import ClientSession
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError

from tests.simulator.faults import Fault
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

MODEL = "meta/meta-llama-3-8b-instruct"
INPUT = {"prompt": "one two"}
OUTPUT = ["You", " said:", " one", " two"]


def _connect(
    simulator: Simulator, transport: httpx.AsyncHTTPTransport | httpx.HTTPTransport
) -> Client:
    """Point a client at the simulator; it polls without a pause and cannot close itself."""
    base_url = simulator.environment["REPLICATE_BASE_URL"]
    client = Client(api_token="r8_test", base_url=base_url, transport=transport)
    client.poll_interval = 0
    return client


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[Client]:
    """Give a client for asynchronous calls."""
    async with httpx.AsyncHTTPTransport() as transport:
        yield _connect(simulator, transport)


async def test_prediction_of_a_model_is_polled_to_its_end(
    simulator: Simulator, client: Client
) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    statuses: list[str] = [prediction.status]
    while statuses[-1] != "succeeded":
        await prediction.async_reload()
        statuses.append(prediction.status)
    assert statuses == ["starting", "processing", "succeeded"]
    assert (prediction.model, prediction.version, prediction.input) == (MODEL, "hidden", INPUT)
    assert prediction.output == OUTPUT
    assert prediction.metrics == {"predict_time": 1.5, "total_time": 2.0}
    assert simulator.calls[0].path == f"/v1/models/{MODEL}/predictions"
    assert simulator.calls[0].headers["authorization"] == "Bearer r8_test"
    assert [call.billed for call in simulator.calls] == [None, None, {"seconds": 1.5}]


async def test_prediction_of_a_version(client: Client) -> None:
    prediction = await client.predictions.async_create(version=f"{MODEL}:5c7d5dc6", input=INPUT)
    assert (prediction.model, prediction.version) == (MODEL, "5c7d5dc6")
    assert prediction.output is None
    assert prediction.urls is not None
    assert prediction.urls["cancel"] == prediction.urls["get"] + "/cancel"


@pytest.mark.parametrize(("wait", "prefer"), [(True, "wait"), (5, "wait=5")])
async def test_waiting_answers_the_finished_prediction(
    simulator: Simulator, client: Client, wait: int | bool, prefer: str
) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=wait)
    assert (prediction.status, prediction.output) == ("succeeded", OUTPUT)
    (call,) = simulator.calls
    assert (call.status, call.headers["prefer"]) == (201, prefer)
    assert call.billed == {"seconds": 1.5}


async def test_run(client: Client) -> None:
    assert await client.async_run(MODEL, INPUT) == OUTPUT


async def test_run_of_the_synchronous_client(simulator: Simulator) -> None:
    with httpx.HTTPTransport() as transport:
        client = _connect(simulator, transport)
        assert await asyncio.to_thread(client.run, MODEL, INPUT) == OUTPUT


async def test_cancelling_bills_the_time_that_it_ran(simulator: Simulator, client: Client) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    await prediction.async_reload()
    await prediction.async_cancel()
    assert prediction.status == "canceled"
    assert prediction.completed_at is not None
    assert simulator.calls[-1].billed == {"seconds": 1.5}


async def test_cancelling_before_it_ran_is_free(simulator: Simulator, client: Client) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    await prediction.async_cancel()
    assert prediction.started_at is None
    assert simulator.calls[-1].billed == {"seconds": 0}


async def test_cancelling_what_has_ended_changes_nothing(
    simulator: Simulator, client: Client
) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=True)
    await prediction.async_cancel()
    assert prediction.status == "succeeded"
    assert simulator.calls[-1].billed is None


async def test_deadline_is_in_the_journal(simulator: Simulator) -> None:
    headers = {"Authorization": "Bearer r8_test", "Cancel-After": "30s"}
    url = f"{simulator.environment['REPLICATE_BASE_URL']}/v1/models/{MODEL}/predictions"
    async with ClientSession(headers=headers) as session:
        await session.post(url, json={"input": INPUT})
    assert simulator.calls[0].headers["cancel-after"] == "30s"


async def test_unknown_prediction(client: Client) -> None:
    with pytest.raises(ReplicateError) as caught:
        await client.predictions.async_get("nothing")
    assert caught.value.status == 404


async def test_reset_forgets_predictions(simulator: Simulator, client: Client) -> None:
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    simulator.reset()
    with pytest.raises(ReplicateError):
        await prediction.async_reload()


async def test_input_is_required(simulator: Simulator) -> None:
    headers = {"Authorization": "Bearer r8_test"}
    url = f"{simulator.environment['REPLICATE_BASE_URL']}/v1/predictions"
    async with (
        ClientSession(headers=headers) as session,
        session.post(url, json={"version": "5c7d5dc6"}) as response,
    ):
        assert response.status == 422
        assert (await response.json())["title"] == "Input validation failed"


@pytest.mark.parametrize(
    ("fault", "status", "title"),
    [
        (Fault(kind="quota"), 402, "Insufficient credit"),
        (Fault(kind="unauthorized"), 401, "Unauthenticated"),
        (Fault(kind="bad_request"), 400, None),
        (Fault(kind="error"), 500, None),
        (Fault(kind="overloaded"), 503, None),
    ],
    ids=str,
)
async def test_refusals(
    simulator: Simulator, client: Client, fault: Fault, status: int, title: str | None
) -> None:
    simulator.inject(fault)
    with pytest.raises(ReplicateError) as caught:
        await client.models.predictions.async_create(MODEL, INPUT)
    assert (caught.value.status, caught.value.title) == (status, title)
    assert caught.value.detail


async def test_throttled(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="rate_limited", retry_after="absent"))
    with pytest.raises(ReplicateError) as caught:
        await client.models.predictions.async_create(MODEL, INPUT)
    assert caught.value.status == 429
    assert caught.value.detail == "Request was throttled. Your rate limit resets in ~30s."


async def test_failed_prediction(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="failed"))
    with pytest.raises(ModelError, match="The model raised an exception"):
        await client.async_run(MODEL, INPUT)
    assert simulator.calls[0].billed == {"seconds": 1.5}


async def test_prediction_that_the_provider_cancels(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="canceled"))
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=True)
    assert (prediction.status, prediction.output) == ("canceled", None)


async def test_prediction_that_is_aborted_before_it_runs(simulator: Simulator) -> None:
    """The client's types do not know this state, so it is read as plain JSON."""
    simulator.inject(Fault(kind="aborted"))
    headers = {"Authorization": "Bearer r8_test", "Prefer": "wait"}
    url = f"{simulator.environment['REPLICATE_BASE_URL']}/v1/models/{MODEL}/predictions"
    async with (
        ClientSession(headers=headers) as session,
        session.post(url, json={"input": INPUT}) as response,
    ):
        prediction = await response.json()
    assert (prediction["status"], prediction["started_at"]) == ("aborted", None)
    assert simulator.calls[0].billed == {"seconds": 0}


async def test_prediction_that_never_ends(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="endless"))
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=True)
    assert simulator.calls[0].status == 202
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(prediction.async_wait(), 0.2)
    assert prediction.status == "processing"


async def test_prediction_that_outlasts_the_wait(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="cold"))
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=1)
    assert (prediction.status, simulator.calls[0].status) == ("starting", 202)
    await prediction.async_wait()
    assert prediction.output == OUTPUT


async def test_output_that_comes_before_the_final_state(
    simulator: Simulator, client: Client
) -> None:
    simulator.inject(Fault(kind="early"))
    prediction = await client.models.predictions.async_create(MODEL, INPUT, wait=True)
    assert (prediction.status, prediction.output, prediction.metrics) == ("processing", OUTPUT, {})
    await prediction.async_wait()
    assert prediction.metrics == {"predict_time": 1.5, "total_time": 2.0}


async def test_urls_of_another_host(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="foreign_url"))
    prediction = await client.models.predictions.async_create(MODEL, INPUT)
    assert prediction.urls is not None
    async with ClientSession() as session:
        await session.get(prediction.urls["get"])
    assert simulator.calls[-1].provider == "elsewhere"
    assert simulator.calls[-1].path == f"/v1/predictions/{prediction.id}"


async def test_contents(simulator: Simulator, client: Client) -> None:
    simulator.inject(Fault(kind="empty"), Fault(kind="no_usage"), Fault(kind="excess_usage"))
    empty, unmetered, excessive = [
        await client.models.predictions.async_create(MODEL, INPUT, wait=True) for _ in range(3)
    ]
    assert empty.output is None
    assert unmetered.metrics == {}
    assert excessive.metrics is not None
    assert excessive.metrics["predict_time"] == 1001.5
    assert [call.billed for call in simulator.calls] == [
        {"seconds": 1.5},
        {"seconds": 1.5},
        {"seconds": 1001.5},
    ]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="timeout"), httpx.ReadTimeout),
        (Fault(kind="drop"), httpx.RemoteProtocolError),
        (Fault(kind="cut"), httpx.RemoteProtocolError),
        (Fault(kind="malformed"), ValueError),
    ],
    ids=str,
)
async def test_lost_answers(
    simulator: Simulator, client: Client, fault: Fault, error: type[Exception]
) -> None:
    simulator.inject(fault)
    with pytest.raises(error):
        await client.models.predictions.async_create(MODEL, INPUT, wait=1)
    assert simulator.calls[0].billed == {"seconds": 1.5}
