"""OpenAI: the requests that are sent, and the cost of embeddings."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from aiohttp import web

from app.settings import Settings
from gateway.pipeline.coalescing import Coalescer
from gateway.policy import Model
from gateway.pricing import cost, max_usage
from gateway.providers.base import Deadline, ProviderFailure, ProviderRequest, Quota, Usage
from gateway.providers.http import open_session
from gateway.providers.openai import OpenAIProvider, open_provider
from tests.fixtures.service import Start
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.support import POLICY, Service, chat, error_of, said, sse
from tests.upstream import answering

CHAT = "/v1/chat/completions"
MODEL = "openai/chat"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}


async def sent(service: Service) -> dict[str, Any]:
    """The only body that was sent to OpenAI."""
    (call,) = service.simulator.calls
    assert call.body is not None
    return call.body


async def test_the_largest_output_is_always_sent(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await client.post(CHAT, json=chat(model=MODEL))
    assert await sent(service) == {
        "model": "gpt-5-mini",
        "messages": [{"role": "user", "content": "one two"}],
        "max_tokens": 64,
    }


async def test_streams_always_ask_for_usage(service: Service, client: httpx2.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat(model=MODEL, stream=True))
    assert (await sent(service))["stream_options"] == {"include_usage": True}
    assert not any(chunk.get("usage") for chunk in sse(response.text)[:-1])
    assert await service.books() == ("settled", "ok")


async def test_the_credential_is_sent_and_not_the_callers(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await client.post(CHAT, json=chat(model=MODEL), headers={"Cookie": "a=b", "X-Custom": "c"})
    (call,) = service.simulator.calls
    key = service.settings.openai_api_key.get_secret_value()
    assert call.headers["authorization"] == f"Bearer {key}"
    assert not {"cookie", "x-custom"} & call.headers.keys()


async def test_the_cost_is_the_usage_at_the_price(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await client.post(CHAT, json=chat("one two three", model=MODEL))
    assert await service.books() == ("settled", "ok")
    assert (await service.attempt()).cost_nano_usd == 3 * 250 + 5 * 2000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("frequency_penalty", 0.5),
        ("logit_bias", {"1": 2.0}),
        ("logprobs", True),
        ("max_tokens", 7),
        ("n", 2),
        ("parallel_tool_calls", False),
        ("presence_penalty", -0.5),
        ("reasoning_effort", "low"),
        ("response_format", {"type": "text"}),
        ("seed", 7),
        ("stop", ["x"]),
        ("temperature", 0.5),
        ("tool_choice", "auto"),
        ("tools", [TOOL]),
        ("top_logprobs", 2),
        ("top_p", 0.5),
        ("prompt_cache_key", "one"),
        ("prompt_cache_options", {"mode": "explicit", "ttl": "30m"}),
        ("prompt_cache_retention", "in_memory"),
        ("function_call", "auto"),
        ("functions", [TOOL["function"]]),
        ("verbosity", "low"),
    ],
)
async def test_parameters_are_passed_on(
    service: Service, client: httpx2.AsyncClient, name: str, value: Any
) -> None:
    response = await client.post(CHAT, json={**chat(model=MODEL), name: value})
    assert response.status_code == 200
    assert (await sent(service))[name] == value


async def test_more_choices_have_a_higher_bound(
    service: Service, client: httpx2.AsyncClient
) -> None:
    response = await client.post(CHAT, json=chat(model=MODEL, n=3, max_tokens=5))
    assert len(response.json()["choices"]) == 3
    bound = (len("userone two") + 8 + 16) * 250 + 3 * 5 * 2000
    assert (await service.attempt()).bound_nano_usd == bound


async def test_schemas_and_other_fields_count_into_the_bound(
    service: Service, client: httpx2.AsyncClient
) -> None:
    messages = [{"role": "tool", "tool_call_id": "call_1", "content": "one"}]
    body = {"model": MODEL, "messages": messages, "tools": [TOOL], "max_tokens": 1}
    await client.post(CHAT, json=body)
    rest = len('{"tool_call_id":"call_1"}') + len(json.dumps([TOOL], separators=(",", ":")))
    bound = (len("toolone") + 8 + 16 + rest) * 250 + 2000
    assert (await service.attempt()).bound_nano_usd == bound


async def test_images_are_bounded_by_their_declared_tokens(
    service: Service, client: httpx2.AsyncClient
) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    parts = [{"type": "text", "text": "one"}, image, image]
    messages = [{"role": "user", "content": parts}]
    body = {"model": "openai/vision", "messages": messages, "max_tokens": 1}
    assert (await client.post(CHAT, json=body)).status_code == 200
    bound = (len("userone") + 8 + 16 + 2 * 100) * 1250 + 10_000
    assert (await service.attempt()).bound_nano_usd == bound
    assert (await sent(service))["messages"] == messages
    # The address was passed on: nothing here fetched it.
    assert len(service.simulator.calls) == 1


@pytest.mark.parametrize("kind", ["input_audio", "file", "video_url"])
async def test_content_of_unknown_cost_is_refused(
    service: Service, client: httpx2.AsyncClient, kind: str
) -> None:
    messages = [{"role": "user", "content": [{"type": kind, "file": {"file_id": "file-1"}}]}]
    response = await client.post(CHAT, json={"model": "openai/vision", "messages": messages})
    assert error_of(response) == (400, "invalid_request", "messages.0.content.0")
    assert service.simulator.calls == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("faults", "outcome"), [([], "ok"), ([Fault(kind="prose")], "invalid_schema")]
)
async def test_json_that_was_asked_for(
    service: Service, client: httpx2.AsyncClient, faults: list[Fault], outcome: str, stream: bool
) -> None:
    service.simulator.inject(*faults)
    body = chat("one", model=MODEL, response_format={"type": "json_object"}, stream=stream)
    await client.post(CHAT, json=body)
    assert await service.books() == ("settled", outcome)


async def test_several_choices_are_streamed(service: Service, client: httpx2.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat("x", model=MODEL, n=2, stream=True))
    assert said(sse(response.text)) == "YouYou said: said: x x"
    first, second = (await service.prediction()).output["choices"]
    assert first["message"] == second["message"]
    assert (first["index"], second["index"]) == (0, 1)


async def test_embeddings(service: Service, client: httpx2.AsyncClient) -> None:
    body = {"model": "openai/embedding", "input": ["one two", "three"], "dimensions": 4}
    answer = (await client.post("/v1/embeddings", json=body)).json()
    assert answer["model"] == "openai/embedding"
    assert [len(item["embedding"]) for item in answer["data"]] == [4, 4]
    assert await sent(service) == body | {"model": "text-embedding-3-small"}
    assert await service.books() == ("settled", "ok")
    assert (await service.attempt()).cost_nano_usd == 3 * 20


async def test_embeddings_in_base64(client: httpx2.AsyncClient) -> None:
    body = {"model": "openai/embedding", "input": "one", "encoding_format": "base64"}
    answer = (await client.post("/v1/embeddings", json=body)).json()
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert len(struct.unpack(f"<{len(raw) // 4}f", raw)) == 8


@pytest.mark.parametrize(
    ("fault", "error", "state"),
    [
        (Fault(kind="rate_limited"), (503, "provider_cooling_down", None), "released"),
        (Fault(kind="bad_request"), (400, "invalid_request", None), "released"),
        (Fault(kind="error"), (502, "provider_error", None), "released"),
        (Fault(kind="malformed"), (502, "provider_error", None), "uncertain"),
        (Fault(kind="drop"), (502, "provider_error", None), "uncertain"),
    ],
    ids=lambda value: str(value) if isinstance(value, Fault) else "",
)
async def test_failed_embeddings(
    service: Service,
    client: httpx2.AsyncClient,
    fault: Fault,
    error: tuple[int, str, None],
    state: str,
) -> None:
    service.simulator.inject(fault)
    body = {"model": "openai/embedding", "input": "one"}
    assert error_of(await client.post("/v1/embeddings", json=body)) == error
    assert await service.books() == (state, "provider_error")


async def test_an_account_without_money_is_the_operators_matter(
    service: Service, client: httpx2.AsyncClient
) -> None:
    service.simulator.inject(Fault(kind="quota"))
    response = await client.post(CHAT, json=chat(model=MODEL))
    assert error_of(response) == (503, "provider_quota_exceeded", None)
    assert response.headers["x-should-retry"] == "false"
    assert "Retry-After" not in response.headers
    assert await service.books() == ("released", "provider_error")


async def test_openai_itself_needs_a_key(start: Start) -> None:
    service = await start(openai_base_url="https://api.openai.com/v1", openai_api_key="")
    client = service.client(await service.create_user())
    response = await client.post(CHAT, json=chat(model=MODEL))
    assert error_of(response) == (502, "provider_error", None)
    assert "OPENAI_API_KEY" in response.json()["error"]["message"]
    assert await service.rows_count() == 0


@pytest.mark.parametrize(
    ("base_url", "name"),
    [
        ("https://api.openai.com/v1", "max_completion_tokens"),
        ("https://API.openai.com/v1/", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://myapi.openai.com.example/v1", "max_tokens"),
        ("https://notapi.openai.com/v1", "max_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
    ],
)
async def test_openai_itself_gets_max_completion_tokens(base_url: str, name: str) -> None:
    async with open_session() as session:
        settings = Settings(_env_file=None, openai_base_url=base_url, openai_api_key="key")
        provider = open_provider(settings.gateway, session)
    assert provider.http.output_limit("gpt-5-mini") == name
    assert (provider.responses is not None) == (name == "max_completion_tokens")


async def test_a_server_of_ones_own_needs_none(start: Start) -> None:
    service = await start(openai_api_key="")
    client = service.client(await service.create_user())
    await client.post(CHAT, json=chat(model=MODEL))
    (call,) = service.simulator.calls
    assert "authorization" not in call.headers


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_slash_at_the_end_of_its_address_changes_nothing(
    start: Start, simulator: Simulator, slash: str
) -> None:
    service = await start(openai_base_url=simulator.environment["OPENAI_BASE_URL"] + slash)
    client = service.client(await service.create_user())
    assert (await client.post(CHAT, json=chat(model=MODEL))).status_code == 200
    await service.stop()
    address = "https://api.openai.com/v1" + slash
    service = await start(openai_base_url=address, openai_api_key="")
    client = service.client(await service.create_user())
    response = await client.post(CHAT, json=chat(model=MODEL))
    assert "OPENAI_API_KEY" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("kind", "state", "cost"),
    [("no_usage", "uncertain", (len("one") + 16) * 20), ("excess_usage", "settled", 1001 * 20)],
)
async def test_embeddings_cost_the_reported_usage_or_the_bound(
    service: Service, client: httpx2.AsyncClient, kind: str, state: str, cost: int
) -> None:
    service.simulator.inject(Fault.model_validate({"kind": kind}))
    body = {"model": "openai/embedding", "input": "one"}
    assert (await client.post("/v1/embeddings", json=body)).status_code == 200
    assert await service.books() == (state, "ok")
    assert (await service.attempt()).cost_nano_usd == cost


VECTOR = {"object": "embedding", "embedding": [0.1]}


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{**VECTOR, "index": 0}],
        [VECTOR] * 3,
        [VECTOR, {"index": 1}],
        [VECTOR, {"embedding": []}],
        [VECTOR, {"embedding": 1}],
        [VECTOR, None],
        [0.1, 0.2],
        None,
        {},
    ],
    ids=repr,
)
async def test_an_answer_with_missing_vectors_pays_the_reported_usage(
    start: Start, data: Any
) -> None:
    answer = {"data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    async with answering(lambda _: answer) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        body = {"model": "openai/embedding", "input": ["one", "two"]}
        response = await client.post("/v1/embeddings", json=body)
    assert error_of(response) == (502, "provider_error", None)
    assert await service.books() == ("settled", "provider_error")
    assert (await service.attempt()).cost_nano_usd == 2 * 20


@pytest.mark.parametrize(
    ("given", "count"), [("one", 1), (["one", "two"], 2), ([1, 2], 1), ([[1], [2]], 2)]
)
async def test_vectors_as_servers_write_them(start: Start, given: Any, count: int) -> None:
    """Without an index, in order; a number that is not finite is null."""
    answer = json.dumps({"data": [VECTOR] * count}).replace("0.1", "-Infinity, 1e999, 0.5")
    async with answering(lambda _: answer.encode()) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        body = {"model": "openai/embedding", "input": given}
        data = (await client.post("/v1/embeddings", json=body)).json()["data"]
    assert [item["index"] for item in data] == list(range(count))
    assert all(item["embedding"] == [None, None, 0.5] for item in data)


async def test_an_error_in_place_of_vectors_is_the_error_that_it_says(start: Start) -> None:
    async with answering(lambda _: {"error": {"message": "busy", "code": 429}}) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        body = {"model": "openai/embedding", "input": "one"}
        response = await client.post("/v1/embeddings", json=body)
    assert error_of(response) == (503, "provider_cooling_down", None)
    assert await service.books() == ("released", "provider_error")


def request(model: str = MODEL) -> ProviderRequest:
    declared = Model.model_validate(POLICY[model])
    body = {"input": "one"} if declared.kind == "embedding" else {"messages": chat()["messages"]}
    return ProviderRequest(declared, body, Deadline(60))


@pytest.fixture
async def provider(simulator: Simulator) -> AsyncIterator[OpenAIProvider]:
    async with open_session() as session:
        yield OpenAIProvider(session, simulator.environment["OPENAI_BASE_URL"], "key")


async def ask(provider: OpenAIProvider, asked: ProviderRequest, how: str) -> None:
    if how == "stream":
        async for _ in provider.stream(asked):
            pass
    else:
        await provider.answer(asked)


@pytest.mark.parametrize("how", ["answer", "stream", "embedding"])
async def test_the_quota_of_the_provider_is_read(
    simulator: Simulator, provider: OpenAIProvider, how: str
) -> None:
    model = "openai/embedding" if how == "embedding" else MODEL
    calm = request(model)
    await ask(provider, calm, how)
    assert calm.quota == Quota(9999, 1_999_000, 0)
    for seconds in (90, 0.25):
        simulator.inject(Fault(kind="used_up", seconds=seconds))
        last = request(model)
        await ask(provider, last, how)
        assert last.quota == Quota(9999, 0, seconds)


@pytest.mark.parametrize(
    ("form", "seconds", "expected"), [("absent", 90, 90), ("absent", 0.25, 0.25), ("seconds", 7, 7)]
)
async def test_a_refusal_says_when_its_limit_is_over(
    simulator: Simulator, provider: OpenAIProvider, form: str, seconds: float, expected: float
) -> None:
    simulator.inject(Fault(kind="rate_limited", seconds=seconds, retry_after=form))
    refused = request()
    with pytest.raises(ProviderFailure) as caught:
        await provider.answer(refused)
    assert caught.value.retry_after == expected
    assert refused.quota == Quota(0, 1_999_000, seconds)


async def test_other_failures_ask_for_no_pause(
    simulator: Simulator, provider: OpenAIProvider
) -> None:
    simulator.inject(Fault(kind="error", status=500))
    with pytest.raises(ProviderFailure) as caught:
        await provider.answer(request())
    assert caught.value.retry_after is None


@pytest.mark.parametrize("form", ["float", "base64"])
async def test_joined_embeddings_are_one_call_whose_bill_is_shared(
    simulator: Simulator, provider: OpenAIProvider, form: str
) -> None:
    coalescer, model = Coalescer(), Model.model_validate(POLICY["openai/embedding"])
    texts = ["one", "two three four", "five six"]
    bodies = [{"input": text, "encoding_format": form} for text in texts]
    alone = [await provider.answer(ProviderRequest(model, body, Deadline(60))) for body in bodies]
    requests = [ProviderRequest(model, body, Deadline(60)) for body in bodies]
    simulator.reset()
    work = (
        coalescer.answer("usr", provider, request, max_usage(model, request.body))
        for request in requests
    )
    answers = await asyncio.gather(*work)
    (call,) = simulator.calls
    assert call.body == {"model": model.name, "input": texts, "encoding_format": form}
    for (reply, _), single in zip(answers, alone, strict=True):
        assert reply.output["data"] == single.output["data"]
    usages = [reply.usage or Usage() for reply, _ in answers]
    assert call.billed == {
        "input_tokens": sum(usage.input_tokens for usage in usages),
        "output_tokens": 0,
    }
    assert sum(share or 0 for _, share in answers) == cost(model.price, Usage(6))
    assert all(request.sent and request.quota for request in requests)


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "insufficient_quota", "code": "insufficient_quota"},
        {"code": "billing_hard_limit_reached", "type": "invalid_request_error"},
    ],
    ids=lambda fields: fields["code"],
)
async def test_a_quota_that_is_used_up_is_asked_once(start: Start, fields: dict[str, str]) -> None:
    calls: list[web.Request] = []

    def refuse(request: web.Request) -> dict[str, Any]:
        calls.append(request)
        return {"error": {"message": "made up: no credit left", **fields}}

    async with answering(refuse, status=429) as url:
        service = await start(openai_base_url=url)
        client = service.client(await service.create_user())
        response = await client.post(CHAT, json=chat(model="openai/vision"))
    assert error_of(response) == (503, "provider_quota_exceeded", None)
    assert (response.headers["x-should-retry"], len(calls)) == ("false", 1)
    assert "Retry-After" not in response.headers
    assert await service.books() == ("released", "provider_error")


@pytest.mark.parametrize("status", [500, 529])
async def test_the_cost_of_server_errors(
    service: Service, client: httpx2.AsyncClient, status: int
) -> None:
    service.simulator.inject(Fault(kind="error", status=status))
    response = await client.post("/v1/chat/completions", json=chat(model="openai/chat"))
    assert error_of(response) == (502, "provider_error", None)
    assert await service.books() == ("released" if status == 500 else "uncertain", "provider_error")
