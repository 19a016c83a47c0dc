"""`POST /v1/chat/completions`: answers and streams, their headers and their price."""

import time
from typing import Any

import httpx2
import pytest

from tests.fixtures.service import Start
from tests.support import Service, User, chat, error_of, said, sse

# What the offline provider counts in "one two" and in "You said: one two".
INPUT, OUTPUT = 2, 5
COST = (INPUT * 250_000_000 + OUTPUT * 2_000_000_000) // 1_000_000
URL = "https://example.com/x.png"
TEXT = {"type": "text", "text": "one"}
REFUSAL = {"type": "refusal", "refusal": "no"}


def _image(**rest: object) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": URL, **rest}}


async def test_answer(client: httpx2.AsyncClient) -> None:
    asked = int(time.time())
    response = await client.post("/v1/chat/completions", json=chat())
    answer = response.json()
    assert response.status_code == 200
    assert (answer["object"], answer["model"]) == ("chat.completion", "offline/echo")
    assert answer["created"] >= asked
    assert answer["id"].startswith("chatcmpl-")
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "You said: one two"
    assert choice["finish_reason"] == "stop"
    assert answer["usage"] == {
        "prompt_tokens": INPUT,
        "completion_tokens": OUTPUT,
        "total_tokens": INPUT + OUTPUT,
    }


@pytest.mark.parametrize("stream", [None, False, True])
async def test_headers_of_a_generation(service: Service, stream: bool | None) -> None:
    client = service.client(await service.create_user("few"))
    response = await client.post("/v1/chat/completions", json=chat(stream=stream))
    assert response.headers["Content-Type"].startswith("text" if stream else "application/json")
    assert response.headers["X-Prediction-ID"] == (await service.prediction()).id
    assert response.headers["x-served-model"] == "offline/echo"
    assert response.headers["X-Request-ID"].startswith("req_")
    assert response.headers["x-ratelimit-limit-requests"] == "5"
    assert response.headers["x-ratelimit-remaining-requests"] == "4"
    assert response.headers["x-ratelimit-reset-requests"] == "12s"


async def test_stream(client: httpx2.AsyncClient) -> None:
    response = await client.post("/v1/chat/completions", json=chat(stream=True))
    *chunks, done = sse(response.text)
    assert response.headers["Content-Type"].startswith("text/event-stream")
    assert done == "[DONE]"
    assert said(chunks) == "You said: one two"
    assert {chunk["model"] for chunk in chunks} == {"offline/echo"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    other = sse((await client.post("/v1/chat/completions", json=chat(stream=True))).text)[0]
    assert other["id"] != chunks[0]["id"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any(chunk.get("usage") for chunk in chunks)


async def test_stream_tells_usage_when_asked(client: httpx2.AsyncClient) -> None:
    body = chat(stream=True, stream_options={"include_usage": True})
    *chunks, last, _ = sse((await client.post("/v1/chat/completions", json=body)).text)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == INPUT + OUTPUT
    assert not any(chunk.get("usage") for chunk in chunks)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_generation_is_recorded_with_its_cost(
    service: Service, client: httpx2.AsyncClient, user: User, stream: bool
) -> None:
    headers = {"X-Request-ID": "mine-1", "Idempotency-Key": "once"}
    body = chat(stream=stream)
    await client.post("/v1/chat/completions", json=body, headers=headers)
    prediction, attempt = await service.prediction(), await service.attempt()
    assert prediction.user_id == attempt.user_id == user.id
    assert (prediction.request_id, prediction.idempotency_key) == ("mine-1", "once")
    assert (prediction.kind, prediction.model) == ("chat", "offline/echo")
    assert (prediction.served_model, prediction.provider) == ("offline/echo", "offline")
    assert (prediction.status, prediction.outcome) == ("succeeded", "ok")
    assert prediction.input == {"messages": body["messages"]}
    assert prediction.output["choices"][0]["message"]["content"] == "You said: one two"
    assert (prediction.input_tokens, prediction.output_tokens) == (INPUT, OUTPUT)
    assert prediction.latency_ms >= 0
    assert prediction.day == prediction.created_at.date().isoformat()
    assert prediction.finished_at >= prediction.created_at
    assert (attempt.prediction_id, attempt.state) == (prediction.id, "settled")
    assert attempt.cost_nano_usd == prediction.cost_nano_usd == COST
    assert attempt.bound_nano_usd > COST
    whole = {"input": 250_000_000, "output": 2_000_000_000, "second": 0, "cache_write": 250_000_000}
    assert attempt.price == whole
    assert attempt.lease_until > attempt.closed_at >= attempt.opened_at


async def test_an_answer_ends_at_its_largest_length(
    service: Service, client: httpx2.AsyncClient
) -> None:
    body = chat(max_completion_tokens=2)
    (choice,) = (await client.post("/v1/chat/completions", json=body)).json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("You said", "length")
    assert (await service.prediction()).outcome == "truncated"
    # The bound counts two tokens of output; the bytes of the role and the text, what is around
    # them, and overhead.
    bound = (len("user" + "one two") + 8 + 16) * 250 + 2 * 2000
    assert (await service.attempt()).bound_nano_usd == bound


async def test_content_in_parts(client: httpx2.AsyncClient) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    body = {"model": "offline/echo", "messages": [{"role": "user", "content": parts}]}
    response = await client.post("/v1/chat/completions", json=body)
    assert response.json()["choices"][0]["message"]["content"] == "You said: one two"


@pytest.mark.parametrize(
    ("part", "code", "param"),
    [
        (_image(file_id="x"), "unsupported_parameter", ".image_url.file_id"),
        (_image(detail="x"), "invalid_request", ".image_url.detail"),
        (_image(detail=["x"]), "invalid_request", ".image_url.detail"),
        ({"type": "image_url", "image_url": {"url": 1}}, "invalid_request", ".image_url.url"),
        ({"type": "image_url", "image_url": URL}, "invalid_request", ".image_url"),
        ({"type": "image_url", "image_url": None}, "invalid_request", ".image_url"),
        ({**TEXT, "text": ["x"]}, "invalid_request", ".text"),
        ({**REFUSAL, "refusal": None}, "invalid_request", ".refusal"),
        ({"type": "text"}, "invalid_request", ".text"),
        ({"type": ["text"]}, "invalid_request", ".type"),
        ({"text": "one"}, "invalid_request", ".type"),
        ({"type": "input_audio", "input_audio": {"data": "x"}}, "invalid_request", ""),
        ({"type": "file", "file": {"file_id": "x"}}, "invalid_request", ""),
        (_image(), "invalid_request", ""),
        ("x", "invalid_request", ""),
    ],
    ids=str,
)
async def test_parts_carry_nothing_that_is_not_counted(
    service: Service, client: httpx2.AsyncClient, part: Any, code: str, param: str
) -> None:
    body = {"model": "offline/echo", "messages": [{"role": "user", "content": [TEXT, part]}]}
    response = await client.post("/v1/chat/completions", json=body)
    assert error_of(response) == (400, code, f"messages.0.content.1{param}")
    assert await service.rows_count() == 0


async def test_content_is_not_kept_unless_wanted(start: Start) -> None:
    service = await start(store_content=False)
    client = service.client(await service.create_user())
    await client.post("/v1/chat/completions", json=chat())
    prediction = await service.prediction()
    assert (prediction.input, prediction.output) == (None, None)
    assert prediction.cost_nano_usd == COST


@pytest.mark.parametrize("name", ["offline/none", "offline/embedding", "", "x" * 5000])
async def test_unknown_model(service: Service, client: httpx2.AsyncClient, name: str) -> None:
    response = await client.post("/v1/chat/completions", json=chat(model=name))
    assert error_of(response) == (404, "model_not_found", "model")
    assert "offline/echo" in response.json()["error"]["message"]
    assert await service.rows_count() == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("service_tier", "priority"), ("web_search_options", {}), ("webhook", "http://localhost")],
)
async def test_unsupported_parameters_are_named(
    service: Service, client: httpx2.AsyncClient, name: str, value: Any
) -> None:
    response = await client.post("/v1/chat/completions", json=chat(**{name: value}))
    assert error_of(response) == (400, "unsupported_parameter", name)
    assert await service.rows_count() == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices(service: Service, client: httpx2.AsyncClient, stream: bool) -> None:
    body = chat(n=2, stream=stream)
    response = await client.post("/v1/chat/completions", json=body)
    assert response.status_code == 200
    row = await service.prediction()
    assert [choice["message"]["content"] for choice in row.output["choices"]] == [
        "You said: one two"
    ] * 2
    assert (row.input_tokens, row.output_tokens) == (INPUT, 2 * OUTPUT)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (chat("x" * 2001), "messages"),
        (chat("ﷺ" * 70), "messages"),  # NFKC makes 33 bytes of each
        (chat(max_tokens=65), "max_tokens"),
        (chat(max_completion_tokens=65), "max_completion_tokens"),
    ],
    ids=["bytes", "normalised bytes", "max_tokens", "max_completion_tokens"],
)
async def test_a_request_over_the_bounds_of_its_model_is_refused(
    service: Service, client: httpx2.AsyncClient, body: dict[str, object], param: str
) -> None:
    response = await client.post("/v1/chat/completions", json=body)
    assert error_of(response) == (400, "request_too_large", param)
    assert await service.rows_count() == 0


async def test_two_largest_outputs_are_refused_as_a_provider_may_heed_either(
    service: Service, client: httpx2.AsyncClient
) -> None:
    body = chat(max_completion_tokens=1, max_tokens=2)
    response = await client.post("/v1/chat/completions", json=body)
    assert error_of(response) == (400, "invalid_request", "max_tokens")
    assert await service.rows_count() == 0


async def test_the_same_largest_output_may_be_given_under_both_names(
    service: Service, client: httpx2.AsyncClient
) -> None:
    body = chat(max_completion_tokens=2, max_tokens=2)
    assert (await client.post("/v1/chat/completions", json=body)).status_code == 200
    assert (await service.prediction()).outcome == "truncated"


async def test_images_are_refused_where_their_cost_is_not_declared(
    client: httpx2.AsyncClient,
) -> None:
    part = _image(detail="low")
    body = {"model": "offline/echo", "messages": [{"role": "user", "content": [part]}]}
    response = await client.post("/v1/chat/completions", json=body)
    assert error_of(response) == (400, "invalid_request", "messages.0.content.0")
