"""The answers of Hugging Face's servers: units of time, forms of vectors, blame."""

import base64
import struct
from typing import Any

import httpx2
import pytest

from gateway.providers.huggingface import vectors_of
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of
from tests.upstream import answering

CHAT, EMBEDDINGS, TASKS = "/v1/chat/completions", "/v1/embeddings", "/v1/predictions"
NANO_USD_PER_SECOND = 120_000
TEXTS = {"model": "huggingface/embedding", "input": "one"}
TASK = {"model": "huggingface/classifier", "input": {"inputs": "one"}}
OPERATOR, BUSY = (502, "provider_error"), (503, "provider_cooling_down")
ACCOUNT = (503, "provider_quota_exceeded")


async def ask(
    start: Start, path: str, body: dict[str, Any], answer: Any, **reply: Any
) -> tuple[Service, httpx2.Response]:
    """The answer of the service to `body` if its provider sends this answer."""
    async with answering(lambda _: answer, **reply) as url:
        service = await start(hf_base_url=url)
        client = service.client(await service.create_user())
        return service, await client.post(path, json=body)


@pytest.mark.parametrize(
    ("headers", "milliseconds"),
    [
        ({"x-compute-time": "0.05"}, 50),
        ({"x-compute-time": "1.5", "x-compute-type": "gpu+optimized"}, 1500),
        ({"x-compute-time": "38", "x-compute-tokens": "3"}, 38),
        ({"x-compute-time": "12", "x-compute-tokens": "3", "x-tokenization-time": "0"}, 12),
    ],
    ids=["hf-inference", "text-generation-inference", "embeddings", "embeddings, timed"],
)
async def test_time_is_in_the_unit_of_its_server(
    start: Start, headers: dict[str, str], milliseconds: int
) -> None:
    service, response = await ask(start, EMBEDDINGS, TEXTS, [[0.1, 0.2]], headers=headers)
    assert response.status_code == 200
    cost = milliseconds * NANO_USD_PER_SECOND // 1000
    assert (await service.attempt()).cost_nano_usd == cost


@pytest.mark.parametrize(
    ("answer", "count", "vectors"),
    [
        ([[0.5, 1]], 1, [[0.5, 1]]),
        ([0.5, 1], 1, [[0.5, 1]]),
        ([[[0.5, 1]], [[2, 3]]], 2, [[0.5, 1], [2, 3]]),
        ({"embeddings": [[0.5, 1]]}, 1, [[0.5, 1]]),
        ({"data": [{"index": 0, "embedding": [0.5, 1]}]}, 1, [[0.5, 1]]),
        ([[[0.1, 0.2], [0.3, 0.4]]], 1, None),
        ([0.5, 1], 2, None),
        ([[0.5], [1]], 1, None),
        ([[0.5, None]], 1, None),
        ([[0.5, float("nan")]], 1, None),
        ([[0.5, 10**40]], 1, None),
        ([[0.5, -1e39]], 1, None),
        ([], 1, None),
        ([[]], 1, None),
        ({"error": "no"}, 1, None),
        ("text", 1, None),
    ],
    ids=str,
)
def test_shapes_of_vectors(answer: Any, count: int, vectors: list[list[float]] | None) -> None:
    assert vectors_of(answer, count) == vectors


async def test_vectors_of_an_unknown_form_cost_the_reported_time(start: Start) -> None:
    answer, headers = [[[0.1], [0.2], [0.3]]], {"x-compute-time": "0.05"}
    service, response = await ask(start, EMBEDDINGS, TEXTS, answer, headers=headers)
    assert error_of(response)[:2] == (502, "provider_error")
    assert (await service.attempt()).cost_nano_usd == 50 * NANO_USD_PER_SECOND // 1000


async def test_base64_is_encoded_here(start: Start) -> None:
    body = TEXTS | {"encoding_format": "base64"}
    _, response = await ask(start, EMBEDDINGS, body, [[0.5, -1.0]])
    encoded = response.json()["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(encoded)) == (0.5, -1.0)


@pytest.mark.parametrize(
    ("path", "body", "status", "answer", "error", "state"),
    [
        (TASKS, TASK, 410, {"error": "the model is deprecated"}, OPERATOR, "released"),
        (TASKS, TASK, 400, {"error": "Model not supported by provider x"}, OPERATOR, "released"),
        (EMBEDDINGS, TEXTS, 400, {"error": "Bad Request: Invalid state"}, OPERATOR, "released"),
        (CHAT, None, 404, b"Not Found", OPERATOR, "released"),
        (
            CHAT,
            None,
            400,
            {"error": {"message": "no provider", "code": "model_not_supported"}},
            OPERATOR,
            "released",
        ),
        (CHAT, None, 402, {"error": "the included credits are used up"}, ACCOUNT, "released"),
        (CHAT, None, 401, {"error": "Invalid username or password."}, ACCOUNT, "released"),
        (CHAT, None, 400, {"error": ["in `parameters`"]}, (400, "invalid_request"), "released"),
        (
            CHAT,
            None,
            422,
            {"error": "`inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "x"},
            (400, "context_length_exceeded"),
            "released",
        ),
        (EMBEDDINGS, TEXTS, 413, {"error": "too long"}, (400, "invalid_request"), "released"),
        (CHAT, None, 429, {"error": "overloaded", "error_type": "overloaded"}, BUSY, "released"),
        (CHAT, None, 503, {"error": "loading", "estimated_time": 300.9}, BUSY, "released"),
        (EMBEDDINGS, TEXTS, 503, {"error": "loading", "estimated_time": 9}, BUSY, "released"),
        (CHAT, None, 503, b"<html>", BUSY, "uncertain"),
        (CHAT, None, 424, {"error": "failed", "error_type": "generation"}, OPERATOR, "uncertain"),
        (CHAT, None, 500, {"error": "x"}, OPERATOR, "uncertain"),
    ],
    ids=str,
)
async def test_blame_and_cost_of_a_failure(
    start: Start,
    path: str,
    body: dict[str, Any] | None,
    status: int,
    answer: Any,
    error: tuple[int, str],
    state: str,
) -> None:
    asked = body or chat(model="huggingface/chat")
    service, response = await ask(start, path, asked, answer, status=status)
    assert error_of(response)[:2] == error
    assert (await service.books())[0] == state


async def test_a_model_that_is_loading_is_waited_for(start: Start) -> None:
    answer = {"error": "loading", "estimated_time": 300.9}
    _, response = await ask(start, CHAT, chat(model="huggingface/chat"), answer, status=503)
    assert response.headers["Retry-After"] == "301"


async def test_a_limit_of_the_hub_names_its_pause(start: Start) -> None:
    """Hugging Face sends `RateLimit: "api";r=0;t=55`."""
    headers = {"RateLimit": '"api";r=0;t=55'}
    asked = chat(model="huggingface/chat")
    _, response = await ask(start, CHAT, asked, {"error": "slow"}, status=429, headers=headers)
    assert response.headers["Retry-After"] == "55"
