"""Chats of providers that speak OpenAI's format: requests, costs and invalid answers."""

import asyncio
import json
from importlib import import_module
from typing import Any

import httpx2
import pytest

from app.settings import Settings
from gateway.policy import Model
from gateway.providers.base import Deadline, ProviderRequest
from gateway.providers.http import open_session
from gateway.providers.openai_wire import BLOCK_BYTES
from tests.fake_provider import chunk
from tests.fixtures.service import Start
from tests.simulator.journal import Call
from tests.simulator.wiring import FORMATS
from tests.support import POLICY, Service, chat, error_of, said, sse
from tests.upstream import answering, streaming

PATH = "/v1/chat/completions"
VARIABLES = {each.name: each.variable.lower() for each in FORMATS}
MODELS = [name for name in POLICY if name.endswith("/chat")]
FUNCTION = {"type": "function", "function": {"name": "f"}}
WORDS = "one two three four five six"
# Of the simulator: the words of the prompt, and "You said:" before them.
BILLED = {"input_tokens": 6, "output_tokens": 8}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def ask(model: str, **rest: Any) -> dict[str, Any]:
    return chat(WORDS, model, **rest)


def only_call(service: Service) -> Call:
    (call,) = service.simulator.calls
    return call


async def settled_cost(service: Service) -> int:
    """The simulator's bill at the price of the attempt."""
    price, billed = (await service.attempt()).price, only_call(service).billed
    assert billed is not None
    tokens = billed["input_tokens"] * price["input"] + billed["output_tokens"] * price["output"]
    return -(-int(tokens) // 1_000_000)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_passed_on_and_paid(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    response = await client.post(PATH, json=ask(model, stream=stream))
    if stream:
        *chunks, done = sse(response.text)
        assert (said(chunks), done) == (f"You said: {WORDS}", "[DONE]")
        assert {chunk["model"] for chunk in chunks} == {model}
        assert not any(chunk.get("usage") for chunk in chunks)
    else:
        (choice,) = response.json()["choices"]
        assert choice["message"]["content"] == f"You said: {WORDS}"
        assert response.json()["model"] == model
    attempt, prediction = await service.attempt(), await service.prediction()
    assert only_call(service).billed == BILLED
    assert (attempt.state, attempt.cost_nano_usd) == ("settled", await settled_cost(service))
    assert 0 < attempt.cost_nano_usd < attempt.bound_nano_usd
    assert (prediction.input_tokens, prediction.output_tokens) == (6, 8)
    assert (prediction.status, prediction.outcome) == ("succeeded", "ok")
    assert prediction.provider == model.partition("/")[0]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_request_that_is_sent(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    rest = {"temperature": 0.5, "stop": ["x"], "seed": 7}
    await client.post(PATH, json=ask(model, stream=stream, **rest))
    call = only_call(service)
    assert call.body is not None
    sent = dict(call.body)
    assert sent.pop("max_tokens") == 64
    name = (await service.attempt()).model
    declared = service.engine.policy.model(name)
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    messages = ask(model)["messages"]
    assert sent == {"model": declared.name, "messages": messages, **rest, **streaming}
    token = call.headers["authorization"].removeprefix("Bearer ")
    assert token.startswith("canary")
    assert token in service.settings.secret_values()


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_smaller_largest_output_is_sent_in_the_servers_spelling(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool, name: str
) -> None:
    response = await client.post(PATH, json=ask(model, stream=stream, **{name: 3}))
    assert response.status_code == 200
    body = only_call(service).body
    assert body is not None
    assert (body["max_tokens"], body.get("max_completion_tokens")) == (3, None)
    assert (await service.prediction()).outcome == "truncated"
    assert (await service.prediction()).output_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_n_is_passed_on_and_multiplies_bound_and_cost(
    service: Service, client: httpx2.AsyncClient, model: str, stream: bool
) -> None:
    response = await client.post(PATH, json=ask(model, stream=stream, n=3, max_tokens=10))
    assert response.status_code == 200
    attempt, prediction = await service.attempt(), await service.prediction()
    size = len("user" + WORDS) + 8 + 16
    price = attempt.price
    bound = size * price["input"] + 3 * 10 * price["output"]
    assert attempt.bound_nano_usd == -(-bound // 1_000_000)
    assert prediction.output_tokens == 3 * 8
    contents = [choice["message"]["content"] for choice in prediction.output["choices"]]
    assert contents == [f"You said: {WORDS}"] * 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tools", [FUNCTION, {"type": "web_search"}]),
        ("tools", [{"type": "code_interpreter", "container": {"type": "auto"}}]),
        ("tools", [{"function": {"name": "f"}}]),
        ("tool_choice", {"type": "web_search"}),
        ("tool_choice", {}),
    ],
    ids=str,
)
async def test_tools_that_the_provider_runs_are_refused(
    service: Service, client: httpx2.AsyncClient, model: str, name: str, value: Any
) -> None:
    response = await client.post(PATH, json=ask(model, **{"tools": [FUNCTION], name: value}))
    assert error_of(response) == (400, "unsupported_parameter", name)
    assert await service.rows_count() == 0
    # A function is the client's own to run.
    body = ask(model, tools=[FUNCTION], tool_choice=FUNCTION)
    assert (await client.post(PATH, json=body)).status_code == 200


@pytest.mark.parametrize(
    "answer",
    [b"[]", b"1", b'"text"', b"\xff\xfe", b"{}", b'{"choices": 1}', b"<html>", b""],
    ids=ascii,
)
async def test_nonsense(start: Start, model: str, answer: bytes) -> None:
    async with answering(lambda _: answer) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=ask(model))
    assert error_of(response) == (502, "provider_error", None)
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", attempt.bound_nano_usd)
    assert (prediction.status, prediction.outcome) == ("failed", "provider_error")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_does_not_end_is_left(
    start: Start, model: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.providers.http.ANSWER_BYTES", 1000)
    part = b'{"choices": [{"index": 0, "message": {"content": "x"}, "delta": {"content": "x"}}]}'
    answer = (b"data: " + part + b"\n\n") * 20 if stream else part + b" " * 1000
    async with answering(lambda _: answer + b"data: [DONE]\n\n" * stream) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=ask(model, stream=stream))
    assert "the answer is too long" in response.text
    assert await service.books() == ("uncertain", "provider_error")


async def test_an_error_is_read_in_part(start: Start, model: str) -> None:
    answer = b" " * 2**21 + b'{"error": {"param": "seed"}}'
    async with answering(lambda _: answer, status=400) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=ask(model))
    assert error_of(response) == (400, "invalid_request", None)
    assert (await service.attempt()).cost_nano_usd == 0


@pytest.mark.parametrize(
    ("named", "param"),
    [("seed", "seed"), ("x" * 101, None), (["seed"], None), ({"a": "b"}, None), (7, None)],
    ids=lambda value: type(value).__name__,
)
async def test_a_parameter_that_a_provider_names_is_a_short_word(
    start: Start, model: str, named: object, param: str | None
) -> None:
    async with answering(lambda _: {"error": {"param": named}}, status=400) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=ask(model, seed=1))
    assert error_of(response) == (400, "invalid_request", param)


@pytest.mark.parametrize("count", ["-1", "1e400", "NaN", '"many"', "null", "1e30"])
async def test_a_nonsense_usage_is_paid_at_the_bound(start: Start, model: str, count: str) -> None:
    choice = '{"message": {"content": "fine"}, "finish_reason": "stop"}'
    usage = f'{{"prompt_tokens": {count}, "completion_tokens": 1}}'
    answer = f'{{"choices": [{choice}], "usage": {usage}}}'.encode()
    async with answering(lambda _: answer) as url:
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        client = service.client(await service.create_user())
        assert (await client.post(PATH, json=ask(model))).status_code == 200
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == ("uncertain", attempt.bound_nano_usd)


async def test_many_streams_at_once(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    asked = [client.post(PATH, json=chat(f"{n}", model, stream=True)) for n in range(20)]
    answers = await asyncio.gather(*asked)
    assert [said(sse(answer.text)) for answer in answers] == [f"You said: {n}" for n in range(20)]


async def test_a_stream_is_decoded_in_small_parts(model: str) -> None:
    """Unread output is kept as bytes: documents take ten times the memory."""
    event = b"data: " + json.dumps(chunk("x" * 50)).encode() + b"\n\n"
    ending = b"data: " + json.dumps(chunk("", "stop")).encode() + b"\n\ndata: [DONE]\n\n"
    burst = event * (20 * BLOCK_BYTES // len(event))
    async with streaming([burst, ending]) as (url, _), open_session() as session:
        provider = model.partition("/")[0]
        settings = Settings(_env_file=None).model_copy(update={VARIABLES[provider]: url})
        adapter = import_module(f"gateway.providers.{provider}")
        opened = adapter.open_provider(settings.gateway, session)
        declared = Model.model_validate({**POLICY[model], "id": model})
        request = ProviderRequest(declared, {"messages": chat()["messages"]}, Deadline(60))
        sizes = [len(chunks) async for chunks in opened.stream(request)]
    assert sum(sizes) == len(burst) // len(event) + 1
    assert max(sizes) <= BLOCK_BYTES // len(event) + 1
