"""Every parameter of OpenAI's request types has a verdict: passed, bounded, dropped or refused."""

from typing import Any

import httpx2
import pytest

from gateway.providers.parameters import CHAT, EMBEDDING, Verdict
from gateway.schemas.chat import ChatRequest
from gateway.schemas.embeddings import EmbeddingRequest
from tests.fake_provider import FakeProvider
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of

PATH = "/v1/chat/completions"
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CUSTOM = {"type": "custom", "custom": {"name": "f"}}
ALLOWED = {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}
ACCEPTED: list[tuple[str, Any]] = [
    ("frequency_penalty", 1),
    ("function_call", "none"),
    ("function_call", {"name": "f"}),
    ("functions", [{"name": "f"}]),
    ("functions", []),
    ("logit_bias", {"50256": -100}),
    ("logprobs", True),
    ("max_completion_tokens", 5),
    ("max_completion_tokens", 5.0),
    ("max_tokens", 5),
    ("metadata", {"trace": "1"}),
    ("modalities", ["text"]),
    ("n", 1),
    ("parallel_tool_calls", False),
    ("presence_penalty", 0.5),
    ("prompt_cache_key", "one"),
    ("prompt_cache_options", {"mode": "implicit"}),
    ("prompt_cache_options", {"ttl": "30m"}),
    ("prompt_cache_retention", "in_memory"),
    ("reasoning_effort", "low"),
    ("response_format", {"type": "text"}),
    ("safety_identifier", "zoë"),
    ("seed", 7.0),
    ("service_tier", "auto"),
    ("service_tier", "default"),
    ("stop", "x"),
    ("stop", ["x", "y"]),
    ("store", False),
    ("stream_options", {"include_usage": True}),
    ("stream_options", {}),
    ("temperature", 1),
    ("tool_choice", "none"),
    ("tool_choice", FUNCTION),
    ("tool_choice", CUSTOM),
    ("tool_choice", {"type": "allowed_tools", "allowed_tools": ALLOWED}),
    ("tools", [FUNCTION, CUSTOM]),
    ("tools", []),
    ("top_logprobs", 2),
    ("top_p", 1),
    ("user", "zoë"),
    ("verbosity", "low"),
]
REFUSED: list[tuple[str, Any]] = [
    ("audio", {"voice": "alloy", "format": "mp3"}),
    ("modalities", ["text", "audio"]),
    ("modalities", ["audio"]),
    ("modalities", []),
    ("moderation", {"model": "omni-moderation-latest"}),
    ("prediction", {"type": "content", "content": "one"}),
    ("prompt_cache_options", {"ttl": "12h"}),
    ("prompt_cache_options", {"ttl": ["30m"]}),
    ("prompt_cache_retention", "24h"),
    ("service_tier", "flex"),
    ("service_tier", "priority"),
    ("service_tier", "scale"),
    ("store", True),
    ("tools", [{"type": "web_search"}]),
    ("tool_choice", {"type": "web_search"}),
    ("web_search_options", {}),
]
UNKNOWN = ["webhook", "extra_body", "thinking", "messages ", "x" * 101]


@pytest.mark.parametrize(
    ("schema", "table"), [(ChatRequest, CHAT), (EmbeddingRequest, EMBEDDING)], ids=["chat", "embed"]
)
def test_each_field_of_a_body_has_a_verdict(schema: Any, table: Any) -> None:
    assert set(schema.model_fields) == set(table)


def test_each_refusal_says_its_reason() -> None:
    refusals = [rule for rule in CHAT.values() if rule.verdict is Verdict.REFUSED]
    assert all(rule.reason for rule in refusals)
    assert {name for name, _ in ACCEPTED + REFUSED} | {"messages", "model", "stream"} == set(CHAT)


@pytest.mark.parametrize("stream", [False, True, None])
async def test_parameters_without_effect_on_the_price_are_accepted(
    client: httpx2.AsyncClient, stream: bool | None
) -> None:
    for name, value in ACCEPTED:
        response = await client.post(PATH, json={**chat(stream=stream), name: value})
        assert (name, value, response.status_code) == (name, value, 200)


async def test_parameters_that_change_the_price_or_store_data_are_refused(
    service: Service, client: httpx2.AsyncClient
) -> None:
    for name, value in REFUSED:
        response = await client.post(PATH, json={**chat(), name: value})
        assert error_of(response) == (400, "unsupported_parameter", name)
        assert CHAT[name].reason in response.json()["error"]["message"]
    assert await service.rows_count() == 0


async def test_null_is_as_if_absent(client: httpx2.AsyncClient) -> None:
    for name in sorted(set(CHAT) - {"messages", "model"}):
        response = await client.post(PATH, json={**chat(), name: None})
        assert (name, response.status_code) == (name, 200)


async def test_a_name_that_openai_does_not_have_is_refused(
    service: Service, client: httpx2.AsyncClient
) -> None:
    for name in UNKNOWN:
        response = await client.post(PATH, json={**chat(), name: "x"})
        assert error_of(response) == (400, "unsupported_parameter", name[:100])
        assert name not in response.text or len(name) <= 100
        options = chat(stream=True, stream_options={name: True})
        error = error_of(await client.post(PATH, json=options))
        assert error == (400, "unsupported_parameter", f"stream_options.{name}"[:100])
    assert await service.rows_count() == 0


async def test_options_of_tools_without_tools_are_not_sent(
    monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    scripted = FakeProvider.install(monkeypatch)
    service = await start()
    client = service.client(await service.create_user())
    body = chat(tools=[], functions=[], tool_choice="auto", parallel_tool_calls=True)
    assert (await client.post(PATH, json=body)).status_code == 200
    assert scripted.asked[0].body == {"messages": chat()["messages"]}


async def test_parameters_of_embeddings_are_accepted(client: httpx2.AsyncClient) -> None:
    body = {"model": "offline/embedding", "input": ["one"], "encoding_format": "base64"}
    for rest in ({"user": "zoë"}, {"user": None}, {"dimensions": 8.0}):
        response = await client.post("/v1/embeddings", json=body | rest)
        assert (rest, response.status_code) == (rest, 200)
