"""A provider's answer comes back in the next request, and is sent in OpenAI's format."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal, get_args, get_origin

import httpx2
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessage
from pydantic import BaseModel

from gateway.providers.messages import OWN, messages_sent, needed_back
from tests.fake_provider import completion
from tests.fixtures.service import Start
from tests.gateway.test_messages import ANSWERED, CALL, TEXT, USER
from tests.support import Service, chat
from tests.upstream import answering

PATH = "/v1/chat/completions"
MODEL = "openai/chat"
USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
# What OpenAI's own request type has for an assistant's message, and for a tool call.
MESSAGE = {"role", "content", "name", "refusal", "tool_calls", "function_call"}
PARTS = {"text", "refusal"}

words = st.text(max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


def of(declared: Any) -> st.SearchStrategy[Any]:
    """Values of a type that the official client declares."""
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        fields = {name: of(info.annotation) for name, info in declared.model_fields.items()}
        return st.fixed_dictionaries({}, optional=fields)
    inner = get_args(declared)
    if get_origin(declared) is list:
        return st.lists(of(inner[0]), max_size=2)
    if get_origin(declared) is Literal:
        return st.sampled_from(inner)
    if get_origin(declared) is Annotated:
        return of(inner[0])
    return st.one_of(*map(of, inner)) if inner else LEAVES[declared]


LEAVES = {str: words, int: st.integers(0, 9), type(None): st.none()}
official = of(ChatCompletionMessage)
odd = st.dictionaries(
    words | st.sampled_from([*MESSAGE, "audio", "annotations", "reasoning", "reasoning_content"]),
    values,
    max_size=4,
)
answers = st.builds(lambda message, more: {**message, **more, "role": "assistant"}, official, odd)


def check_message(message: dict[str, Any]) -> None:
    """Fail if OpenAI's API would refuse an assistant's message."""
    assert message.keys() <= MESSAGE
    content, calls = message.get("content"), message.get("tool_calls")
    assert isinstance(content, str | list) or calls or message.get("function_call")
    assert content != []
    for part in content if isinstance(content, list) else ():
        assert set(part) == {"type", part["type"]}
        assert part["type"] in PARTS
    assert calls is None or calls
    for call in calls or ():
        assert call.keys() <= {"id", "type", call["type"]}
        assert isinstance(call[call["type"]]["name"], str)
    for function in [call["function"] for call in calls or () if call["type"] == "function"]:
        assert isinstance(function["arguments"], str)


@given(st.lists(answers, max_size=4), st.sampled_from([OWN, frozenset[str]()]))
def test_sent_messages_have_openais_format(
    messages: list[dict[str, Any]], more: frozenset[str]
) -> None:
    for message in messages_sent(messages, more):
        check_message(message)
        assert message.keys() <= MESSAGE - (OWN - more)


@asynccontextmanager
async def conversation(start: Start, **message: Any) -> AsyncIterator[tuple[Service, list[Any]]]:
    """A service whose provider answers with `message`, and the bodies that it gets."""
    bodies: list[Any] = []

    async def answer(request: web.Request) -> Any:
        bodies.append(await request.json())
        return completion(**{"content": "fine", **message}) | {"usage": USAGE}

    async with answering(answer) as url:
        yield await start(openai_base_url=f"{url}/v1"), bodies


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=answers)
async def test_any_answer_is_taken_back(
    service: Service, client: httpx2.AsyncClient, message: dict[str, Any]
) -> None:
    body = chat(model="offline/echo") | {"messages": [USER, message, USER]}
    assert (await client.post(PATH, json=body)).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_the_messages_that_are_sent(
    service: Service, client: httpx2.AsyncClient, stream: bool
) -> None:
    for fields in ANSWERED:
        message = {"role": "assistant", "content": "one", **fields}
        body = chat(model=MODEL, stream=stream) | {"messages": [USER, message, USER]}
        response = await client.post(PATH, json=body)
        assert (fields, response.status_code) == (fields, 200)
        sent = service.simulator.calls[-1].body
        assert sent is not None
        assert sent["messages"][::2] == [USER, USER]
        check_message(sent["messages"][1])


@pytest.mark.parametrize(
    ("message", "sent"),
    [
        ({"content": "one", "annotations": [], "audio": None}, {"content": "one"}),
        ({"content": None, "tool_calls": [{**CALL, "index": 0}]}, {"tool_calls": [CALL]}),
        ({"content": "", "tool_calls": [CALL]}, {"content": "", "tool_calls": [CALL]}),
        (
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": "ä"}}}]},
            {
                "tool_calls": [
                    {
                        "id": "1",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a":"ä"}'},
                    }
                ]
            },
        ),
        (
            {"function_call": {"name": "f", "arguments": None}},
            {"function_call": {"name": "f", "arguments": "{}"}},
        ),
        ({"content": None, "refusal": "no"}, {"content": "no"}),
        ({"content": [{"type": "thinking", "thinking": []}, TEXT]}, {"content": [TEXT]}),
        ({"content": [{"type": "thinking", "thinking": []}]}, {"content": ""}),
        ({"content": None, "reasoning_content": "because"}, {"content": ""}),
    ],
    ids=str,
)
def test_an_answer_in_openais_format(message: dict[str, Any], sent: dict[str, Any]) -> None:
    assert messages_sent([{"role": "assistant", **message}]) == [{"role": "assistant", **sent}]


def test_openai_itself_gets_its_own_fields() -> None:
    message = {"role": "assistant", "refusal": "no"}
    assert messages_sent([message], OWN) == [{**message, "content": ""}]
    mark = {"mode": "explicit"}
    part = {**TEXT, "prompt_cache_breakpoint": mark}
    assert messages_sent([{"role": "user", "content": [part]}], OWN)[0]["content"] == [part]
    assert messages_sent([{"role": "user", "content": [part]}])[0]["content"] == [TEXT]
    long = {**TEXT, "prompt_cache_breakpoint": {**mark, "ttl": "12h"}}
    assert messages_sent([{"role": "user", "content": [long]}], OWN)[0]["content"] == [TEXT]


@pytest.mark.parametrize(
    ("server", "base_url", "model", "fields"),
    [
        ("openai", "https://api.deepseek.com", "deepseek-chat", {"reasoning_content"}),
        ("deepseek", "http://localhost:8000", "chat", {"reasoning_content"}),
        ("openai", "http://localhost:8000/v1", "deepseek-v4", {"reasoning_content"}),
        ("openai", "https://api.groq.com/openai/v1", "deepseek-r1-distill", set()),
        ("openai", "https://openrouter.ai/api/v1", "x", {"reasoning", "reasoning_details"}),
        ("openai", "http://localhost:8000/v1", "gpt-5-mini", set()),
    ],
)
def test_the_fields_that_a_server_needs_back(
    server: str, base_url: str, model: str, fields: set[str]
) -> None:
    assert needed_back(server, base_url, model) == fields


async def test_deepseek_gets_its_reasoning_back(start: Start, policy_dir: Any) -> None:
    policy = policy_dir / "models.toml"
    text = policy.read_text("utf-8").replace('name = "gpt-5-mini"', 'name = "deepseek-chat"')
    policy.write_text(text, "utf-8")
    reasoning = {"reasoning_content": "because", "annotations": [], "tool_calls": [CALL]}
    async with conversation(start, content=None, **reasoning) as (service, bodies):
        client = service.client(await service.create_user())
        answer = (await client.post(PATH, json=chat(model=MODEL))).json()["choices"][0]["message"]
        result = {"role": "tool", "tool_call_id": "call_1", "content": "one"}
        body = chat(model=MODEL) | {"messages": [USER, answer, result]}
        assert (await client.post(PATH, json=body)).status_code == 200
    expected = {"role": "assistant", "tool_calls": [CALL], "reasoning_content": "because"}
    assert bodies[1]["messages"] == [USER, expected, result]


async def test_the_official_client_appends_what_it_got(start: Start) -> None:
    more: dict[str, Any] = {
        "annotations": [],
        "refusal": None,
        "audio": None,
        "reasoning": "because",
    }
    tools: Any = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    async with conversation(start, content=None, tool_calls=[CALL], **more) as (service, bodies):
        user = await service.create_user()
        async with AsyncOpenAI(
            base_url=f"{service.url}/v1",
            api_key=user.credential,
            default_headers=user.headers,
            max_retries=0,
        ) as client:
            messages: list[Any] = [USER]
            for _ in range(3):
                reply = await client.chat.completions.create(
                    model=MODEL, messages=messages, tools=tools
                )
                messages.append(reply.choices[0].message)
                calls = reply.choices[0].message.tool_calls
                assert calls is not None
                messages += [
                    {"role": "tool", "tool_call_id": call.id, "content": "one"} for call in calls
                ]
    answers = [message for message in bodies[-1]["messages"] if message["role"] == "assistant"]
    assert answers == [{"role": "assistant", "tool_calls": [CALL]}] * 2


async def test_openai_itself_is_asked_for_the_default_tier(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.providers.openai.OWN_HOST", "127.0.0.1")
    async with conversation(start) as (service, bodies):
        client = service.client(await service.create_user())
        for tier in (None, "auto", "default"):
            body = chat(model=MODEL, service_tier=tier)
            assert (await client.post(PATH, json=body)).status_code == 200
    assert [body["service_tier"] for body in bodies] == ["default"] * 3


async def test_dropped_parameters_are_not_sent(
    service: Service, client: httpx2.AsyncClient
) -> None:
    dropped = {
        "metadata": {"a": "b"},
        "modalities": ["text"],
        "safety_identifier": "zoë",
        "service_tier": "auto",
        "store": False,
        "user": "zoë",
    }
    plain = chat(model=MODEL)
    assert (await client.post(PATH, json={**plain, **dropped})).status_code == 200
    (call,) = service.simulator.calls
    assert call.body is not None
    assert call.body.keys() - {"max_tokens", "max_completion_tokens"} == {"model", "messages"}
    # The record has the request as the client sent it.
    assert (await service.prediction()).input == {**dropped, "messages": plain["messages"]}
    embedding = {"model": "openai/embedding", "input": "one", "user": "zoë"}
    assert (await client.post("/v1/embeddings", json=embedding)).status_code == 200
    sent = service.simulator.calls[-1].body
    assert json.dumps(sent) == json.dumps({"input": "one", "model": "text-embedding-3-small"})
