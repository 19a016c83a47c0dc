"""`POST /v1/embeddings`: texts and token ids, as floats and in base64."""

import asyncio
import base64
import struct
from typing import Any, NoReturn

import httpx2
import pytest

from gateway.db.tables import attempts
from gateway.providers.base import ProviderFailure, ProviderRequest, Reply, Usage
from tests.fake_provider import FakeProvider
from tests.fixtures.service import Start
from tests.support import Service, error_of, eventually

MODEL = "offline/embedding"


async def embed(client: httpx2.AsyncClient, given: Any, **rest: Any) -> httpx2.Response:
    body = {"model": MODEL, "input": given, **rest}
    return await client.post("/v1/embeddings", json=body)


async def test_answer(client: httpx2.AsyncClient) -> None:
    answer = (await embed(client, ["one two", "three"])).json()
    assert (answer["object"], answer["model"]) == ("list", MODEL)
    assert [item["index"] for item in answer["data"]] == [0, 1]
    first, second = [item["embedding"] for item in answer["data"]]
    assert len(first) == len(second)
    assert first != second
    assert sum(number * number for number in first) == pytest.approx(1)
    assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_the_same_text_has_the_same_vector(client: httpx2.AsyncClient) -> None:
    alone = (await embed(client, "one")).json()["data"]
    among_others = (await embed(client, ["two", "one"])).json()["data"]
    assert alone[0]["embedding"] == among_others[1]["embedding"]


@pytest.mark.parametrize(("given", "count"), [([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_token_ids(client: httpx2.AsyncClient, given: list[Any], count: int) -> None:
    assert len((await embed(client, given)).json()["data"]) == count


@pytest.mark.parametrize("token", [0, 2**63, -(10**4000)], ids=["0", "64 bits", "4000 digits"])
async def test_a_token_id_is_one_token_however_long_it_is(
    client: httpx2.AsyncClient, token: int
) -> None:
    for given in ([token, token], [[token], [token]]):
        assert (await embed(client, given)).json()["usage"]["prompt_tokens"] == 2


async def test_the_offline_provider_makes_no_endless_answer(client: httpx2.AsyncClient) -> None:
    assert (await embed(client, ["x"] * 128, dimensions=4096)).status_code == 200
    response = await embed(client, ["x"] * 129, dimensions=4096)
    assert error_of(response) == (400, "invalid_request", "dimensions")


@pytest.mark.parametrize("given", [["x"] * 2049, [[1]] * 2049], ids=["texts", "token ids"])
async def test_there_are_no_more_inputs_than_openai_takes(
    client: httpx2.AsyncClient, given: list[Any]
) -> None:
    assert error_of(await embed(client, given)) == (400, "invalid_request", "input")
    assert (await embed(client, given[1:], dimensions=1)).status_code == 200


async def test_vectors_are_not_logged_with_the_content(start: Start) -> None:
    service = await start(log_content=True)
    await embed(service.client(await service.create_user()), "one")
    (event,) = service.access_events()
    assert (event["outcome"], "output" in event) == ("ok", False)


async def test_base64_holds_the_same_numbers(client: httpx2.AsyncClient) -> None:
    floats = (await embed(client, "one", dimensions=8)).json()["data"][0]["embedding"]
    encoded = (await embed(client, "one", dimensions=8, encoding_format="base64")).json()
    raw = base64.b64decode(encoded["data"][0]["embedding"])
    assert struct.unpack("<8f", raw) == pytest.approx(floats)


async def test_an_embedding_is_recorded_with_its_cost_and_without_vectors(
    service: Service, client: httpx2.AsyncClient
) -> None:
    response = await embed(client, ["one two", "three"])
    prediction, attempt = await service.prediction(), await service.attempt()
    assert response.headers["X-Prediction-ID"] == prediction.id
    assert response.headers["x-served-model"] == MODEL
    assert (prediction.kind, prediction.status, prediction.outcome) == (
        "embedding",
        "succeeded",
        "ok",
    )
    assert prediction.input == {"input": ["one two", "three"]}
    assert prediction.output is None
    assert (prediction.input_tokens, prediction.output_tokens) == (3, 0)
    assert prediction.cost_nano_usd == 3 * 20
    # Bytes and overhead, for each text.
    assert attempt.bound_nano_usd == (len("one twothree") + 2 * 16) * 20


@pytest.mark.parametrize(
    ("given", "rest", "code", "param"),
    [
        ("x" * 2001, {}, "request_too_large", "input"),
        ([[1] * 2001, [2]], {}, "request_too_large", "input"),
        ("one", {"dimensions": 0}, "invalid_request", "dimensions"),
        ("one", {"dimensions": 5000}, "invalid_request", "dimensions"),
        ("one", {"dimensions": "8"}, "invalid_request", "dimensions"),
        ("one", {"encoding_format": "hex"}, "invalid_request", "encoding_format"),
        ("one", {"webhook": "http://localhost"}, "unsupported_parameter", "webhook"),
    ],
)
async def test_refusals(
    service: Service,
    client: httpx2.AsyncClient,
    given: Any,
    rest: dict[str, Any],
    code: str,
    param: str,
) -> None:
    assert error_of(await embed(client, given, **rest)) == (400, code, param)
    assert await service.rows_count() == 0


async def test_a_call_for_many_requests_that_fails_is_one_failure(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    """Eight are too many in a row for a provider that is well."""
    monkeypatch.setattr("gateway.pipeline.coalescing.GATHER_SECONDS", 60)
    scripted, go = FakeProvider.install(monkeypatch), asyncio.Event()
    scripted.parameters = {"embedding": None}

    async def fail(request: ProviderRequest) -> NoReturn:
        request.sent = True
        await go.wait()
        raise ProviderFailure("no", status=500)

    scripted.on_answer = fail
    service = await start()
    client = service.client(await service.create_user())
    asking = asyncio.gather(*(embed(client, "one") for _ in range(8)))

    async def all_wait() -> bool:
        return len(await service.rows(attempts)) == 8

    await eventually(all_wait)
    go.set()
    assert {error_of(answer) for answer in await asking} == {(502, "provider_error", None)}
    assert len(scripted.asked) < 5
    assert error_of(await embed(client, "one")) == (502, "provider_error", None)


@pytest.mark.parametrize(
    "given", ["", [], 1, None, {}, ["one", 2], [True], [[]], [[1], []]], ids=repr
)
async def test_what_is_no_input(client: httpx2.AsyncClient, given: Any) -> None:
    status, code, _ = error_of(await embed(client, given))
    assert (status, code) == (400, "invalid_request")


async def test_a_batch_has_room_for_a_long_text_in_each_place(client: httpx2.AsyncClient) -> None:
    """The limit of a text is none of all texts together: the model of the tests takes 2000."""
    assert (await embed(client, ["x" * 1000] * 20)).status_code == 200
    error = error_of(await embed(client, ["x" * 1000, "x" * 2001]))
    assert error == (400, "request_too_large", "input")


@pytest.mark.parametrize(("given", "tokens"), [("one", 2), (["one", "two"], 2)], ids=str)
async def test_an_answer_without_vectors_is_an_error_and_costs_what_was_used(
    monkeypatch: pytest.MonkeyPatch, start: Start, given: Any, tokens: int
) -> None:
    scripted = FakeProvider.install(monkeypatch)
    scripted.parameters = {"embedding": None}

    async def answer(request: ProviderRequest) -> Reply:
        request.sent = True
        return Reply({"object": "list", "data": []}, Usage(tokens))

    scripted.on_answer = answer
    service = await start()
    client = service.client(await service.create_user())
    assert error_of(await embed(client, given)) == (502, "provider_error", None)
    assert await service.books() == ("settled", "provider_error")
    assert (await service.attempt()).cost_nano_usd == tokens * 20


async def test_a_chat_model_does_not_embed(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/embeddings", json={"model": "offline/echo", "input": "one"})
    assert error_of(response) == (404, "model_not_found", "model")
    assert MODEL in response.json()["error"]["message"]
