"""Hugging Face: chats by its router; embeddings and tasks, which are billed by the second."""

import base64
from typing import Any

import httpx2
import pytest

from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.simulator.huggingface import PNG
from tests.simulator.server import Simulator
from tests.support import POLICY, SOON_SECONDS, Service, chat, describe, error_of
from tests.upstream import answering

TASK = {"model": "huggingface/classifier", "input": {"inputs": "one two"}}
EMBEDDING = {"model": "huggingface/embedding", "input": ["one", "two"]}
# The simulator's compute time, rounded up to the next microsecond, at 0.00012 dollars a second.
MAX_COST = -(-25_001 * 120_000 // 1_000_000)
BOUND = 30 * 120_000


async def test_chat_goes_to_the_router(service: Service, client: httpx2.AsyncClient) -> None:
    await client.post("/v1/chat/completions", json=chat(model="huggingface/chat"))
    (call,) = service.simulator.calls
    token = service.settings.hf_token.get_secret_value()
    assert (call.path, call.headers["authorization"]) == (
        "/v1/chat/completions",
        f"Bearer {token}",
    )
    assert call.body == {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "messages": [{"role": "user", "content": "one two"}],
        "max_tokens": 64,
    }
    assert (await service.attempt()).cost_nano_usd == 2 * 50 + 4 * 80


WRONG = (422, "invalid_request", None)


@pytest.mark.parametrize("name", ["reasoning_effort", "verbosity"])
async def test_parameters_that_the_router_does_not_take_are_named(
    client: httpx2.AsyncClient, name: str
) -> None:
    body = {**chat(model="huggingface/chat"), name: "low"}
    response = await client.post("/v1/chat/completions", json=body)
    assert error_of(response) == (400, "unsupported_parameter", name)


async def test_embeddings(service: Service, client: httpx2.AsyncClient) -> None:
    answer = (await client.post("/v1/embeddings", json=EMBEDDING)).json()
    assert answer["model"] == "huggingface/embedding"
    assert [item["index"] for item in answer["data"]] == [0, 1]
    assert all(len(item["embedding"]) == 8 for item in answer["data"])
    (call,) = service.simulator.calls
    name = POLICY["huggingface/embedding"]["name"]
    assert call.path == f"/hf-inference/models/{name}/pipeline/feature-extraction"
    assert call.body == {"inputs": ["one", "two"]}
    assert await service.books() == ("settled", "ok")
    await _assert_paid_by_the_second(service)


async def test_one_text_is_embedded_like_a_list(client: httpx2.AsyncClient) -> None:
    one = (await client.post("/v1/embeddings", json=EMBEDDING | {"input": "one"})).json()
    two = (await client.post("/v1/embeddings", json=EMBEDDING)).json()
    assert one["data"] == two["data"][:1]


async def test_its_embeddings_have_one_size(service: Service, client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json=EMBEDDING | {"dimensions": 4})
    assert (response.status_code, error_of(response)[2]) == (400, "dimensions")
    assert service.simulator.calls == []


async def test_tasks_take_any_input(service: Service, client: httpx2.AsyncClient) -> None:
    given = {"inputs": "one", "parameters": {"top_k": 1}, "options": {"use_cache": False}}
    record = (await client.post("/v1/predictions", json=TASK | {"input": given})).json()
    assert record["output"][0][0] == {"label": "POSITIVE", "score": 0.75}
    (call,) = service.simulator.calls
    assert call.path == f"/hf-inference/models/{POLICY['huggingface/classifier']['name']}"
    assert call.body == given
    assert record["usage"]["seconds"] == pytest.approx(0.025, abs=1e-5)
    await _assert_paid_by_the_second(service)


async def test_a_webhook_in_a_task_is_refused(client: httpx2.AsyncClient) -> None:
    given = {"inputs": "one", "webhook": "http://localhost"}
    response = await client.post("/v1/predictions", json=TASK | {"input": given})
    assert (response.status_code, error_of(response)[1]) == (422, "unsupported_parameter")


async def test_pictures_come_as_data_urls(client: httpx2.AsyncClient) -> None:
    body = {"model": "huggingface/image", "input": {"inputs": "a cat"}}
    record = (await client.post("/v1/predictions", json=body)).json()
    assert record["output"] == "data:image/png;base64," + base64.b64encode(PNG).decode()


@pytest.mark.parametrize(
    ("fault", "error", "state"),
    [
        (Fault(kind="rate_limited"), (503, "provider_cooling_down", None), "released"),
        (Fault(kind="overloaded"), (503, "provider_cooling_down", None), "released"),
        (Fault(kind="bad_request"), WRONG, "released"),
        (Fault(kind="unauthorized"), (503, "provider_quota_exceeded", None), "released"),
        (Fault(kind="error"), (502, "provider_error", None), "uncertain"),
        (Fault(kind="redirect"), (502, "provider_error", None), "uncertain"),
        (Fault(kind="drop"), (502, "provider_error", None), "uncertain"),
        (Fault(kind="cut"), (502, "provider_error", None), "uncertain"),
        (Fault(kind="malformed"), (502, "provider_error", None), "uncertain"),
    ],
    ids=describe,
)
@pytest.mark.parametrize(
    ("path", "body"), [("/v1/embeddings", EMBEDDING), ("/v1/predictions", TASK)]
)
async def test_failures(
    service: Service,
    client: httpx2.AsyncClient,
    path: str,
    body: dict[str, Any],
    fault: Fault,
    error: tuple[int, str, None],
    state: str,
) -> None:
    service.simulator.inject(fault)
    status, code, param = error
    status = 400 if error == WRONG and path == "/v1/embeddings" else status
    assert error_of(await client.post(path, json=body)) == (status, code, param)
    assert await service.books() == (state, "provider_error")
    assert len(service.simulator.calls) == 1


async def test_a_model_that_is_loading_says_how_long(
    service: Service, client: httpx2.AsyncClient
) -> None:
    service.simulator.inject(Fault(kind="overloaded", seconds=17.5))
    response = await client.post("/v1/predictions", json=TASK)
    assert response.headers["Retry-After"] == "18"


async def test_a_task_that_never_ends_meets_the_deadline(start: Start) -> None:
    service = await start(request_deadline_seconds=SOON_SECONDS)
    client = service.client(await service.create_user())
    service.simulator.inject(Fault(kind="timeout"))
    response = await client.post("/v1/predictions", json=TASK)
    assert error_of(response) == (504, "deadline_exceeded", None)
    assert await service.books() == ("uncertain", "timeout")
    assert (await service.attempt()).cost_nano_usd == BOUND


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/"])
async def test_its_address_may_name_the_version(
    start: Start, simulator: Simulator, path: str
) -> None:
    service = await start(hf_base_url=simulator.environment["HF_BASE_URL"] + path)
    client = service.client(await service.create_user())
    response = await client.post("/v1/chat/completions", json=chat(model="huggingface/chat"))
    assert response.status_code == 200


@pytest.mark.parametrize(
    "answer", [{}, [], [1, 2], [[], []], [["x"], ["y"]], [[0.5]], None], ids=str
)
async def test_nonsense_instead_of_vectors(start: Start, answer: Any) -> None:
    async with answering(lambda _: answer) as url:
        service = await start(hf_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post("/v1/embeddings", json=EMBEDDING)
    assert error_of(response) == (502, "provider_error", None)
    assert await service.books() == ("uncertain", "provider_error")


@pytest.mark.parametrize("header", ["", "soon", "-1", "inf", "nan", "1e300", "1_0", "true"])
async def test_nonsense_seconds_are_paid_at_the_bound(start: Start, header: str) -> None:
    async with answering(lambda _: [["fine"]], headers={"x-compute-time": header}) as url:
        service = await start(hf_base_url=url)
        client = service.client(await service.create_user())
        assert (await client.post("/v1/predictions", json=TASK)).status_code == 201
    assert (await service.attempt()).cost_nano_usd == BOUND


@pytest.mark.parametrize("estimate", [-1, 0, 1e300, "soon", None, float("inf"), float("nan")])
async def test_a_nonsense_estimate_is_not_passed_on(start: Start, estimate: Any) -> None:
    async with answering(lambda _: {"estimated_time": estimate}, status=503) as url:
        service = await start(hf_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post("/v1/predictions", json=TASK)
    assert error_of(response) == (503, "provider_cooling_down", None)
    assert response.headers["Retry-After"] == "5"


async def test_its_own_router_needs_a_token(start: Start) -> None:
    service = await start(hf_base_url="https://router.huggingface.co/v1", hf_token="")
    client = service.client(await service.create_user())
    response = await client.post("/v1/predictions", json=TASK)
    assert error_of(response) == (502, "provider_error", None)
    assert "HF_TOKEN" in response.json()["error"]["message"]


async def _assert_paid_by_the_second(service: Service) -> None:
    attempt = await service.attempt()
    assert MAX_COST - 1 <= attempt.cost_nano_usd <= MAX_COST
    assert attempt.bound_nano_usd == BOUND


@pytest.mark.parametrize("status", [500, 529])
async def test_the_cost_of_server_errors(
    service: Service, client: httpx2.AsyncClient, status: int
) -> None:
    service.simulator.inject(Fault(kind="error", status=status))
    response = await client.post("/v1/chat/completions", json=chat(model="huggingface/chat"))
    assert error_of(response) == (502, "provider_error", None)
    assert await service.books() == ("uncertain", "provider_error")
