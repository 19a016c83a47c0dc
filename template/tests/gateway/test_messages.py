"""Messages of clients: an answer is accepted back unchanged, and its bytes count."""

from typing import Any

import httpx2
import pytest

from gateway.schemas.messages import ROLES
from tests.support import Service, chat, error_of, unique

PATH = "/v1/chat/completions"
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TEXT = {"type": "text", "text": "one"}
CACHED = {**TEXT, "cache_control": {"type": "ephemeral"}}
CITATION = {"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "x"}}
# Fields of providers' answers in addition to role and content: real ones and possible ones.
ANSWERED: list[dict[str, Any]] = [
    {"annotations": []},
    {"annotations": [CITATION]},
    {"audio": None},
    {"audio": {"id": "audio_1", "data": "AAAA", "expires_at": 1, "transcript": "one"}},
    {"cache_control": {"type": "ephemeral"}},
    {"content": None},
    {"content": ""},
    {"content": []},
    {"content": {"parts": ["one"]}},
    {"content": 7},
    {"content": ["one", None, 7, ["one"]]},
    {"content": [{"type": "thinking", "thinking": [TEXT]}, TEXT]},
    {"content": [{"type": "image_url", "image_url": "data:,x"}, {"type": None}, {"type": []}, {}]},
    {"content": [{"type": "text", "text": None}, {"type": "refusal", "refusal": "no"}]},
    {"content": [CACHED]},
    {"content": None, "refusal": "no"},
    {"content": None, "tool_calls": [CALL]},
    {"content": None, "tool_calls": [{**CALL, "index": 0, "extra_content": {"x": "y"}}]},
    {"content": None, "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {}}}]},
    {"content": None, "tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]},
    {"tool_calls": []},
    {"tool_calls": None},
    {"tool_calls": [None, "one", {}]},
    {"function_call": None},
    {"content": None, "function_call": {"name": "f", "arguments": "{}"}},
    {"id": "msg_1"},
    {"images": [{"type": "image_url", "image_url": {"url": "data:,x"}, "index": 0}]},
    {"name": None},
    {"name": 7},
    {"reasoning": "because"},
    {"reasoning_content": "because"},
    {"reasoning_details": [{"type": "reasoning.text", "text": "because", "signature": None}]},
    {"refusal": None},
    {"refusal": {"reason": "no"}},
    {"provider_specific_fields": {"deep": [{"deeper": None}]}},
]
USER = {"role": "user", "content": "one"}
# What clients put into the messages of the other roles.
ASKED: list[dict[str, Any]] = [
    {"role": "user", "content": [CACHED]},
    {"role": "user", "content": [{**TEXT, "annotations": [], "id": "1"}]},
    {"role": "user", "content": [{**TEXT, "prompt_cache_breakpoint": {"mode": "explicit"}}]},
    {"role": "user", "content": []},
    {"role": "user", "content": "one", "id": "1", "cache_control": {"type": "ephemeral"}},
    {"role": "system", "content": "one", "name": None},
    {"role": "developer", "content": [TEXT], "annotations": []},
    {"role": "tool", "tool_call_id": "call_1", "name": "f", "content": [CACHED]},
    {"role": "tool", "tool_call_id": "call_1", "content": None},
    {"role": "function", "name": "f", "content": "one"},
]
# More than the model takes, wherever it stands.
LONG: list[dict[str, Any]] = [
    {"role": "assistant", "content": None, "reasoning_content": "x" * 2000},
    {"role": "assistant", "content": {"x": "x" * 2000}},
    {"role": "assistant", "content": [{"type": "thinking", "thinking": "x" * 2000}]},
    {"role": "assistant", "content": [{**TEXT, "signature": "x" * 2000}]},
    {"role": "assistant", "x" * 2000: 1},
    {"role": "user", "content": [{**TEXT, "cache_control": "x" * 2000}]},
    {"role": "user", "content": "one", "id": "x" * 2000},
    {"role": "user", "content": [{**TEXT, "x" * 2000: 1}]},
]


async def test_an_answer_is_taken_back_as_it_was_given(client: httpx2.AsyncClient) -> None:
    for fields in ANSWERED:
        messages = [USER, {"role": "assistant", "content": "one", **fields}, USER]
        response = await client.post(PATH, json=chat() | {"messages": messages})
        assert (fields, response.status_code) == (fields, 200)
    # It may be the last one, which some servers continue.
    for fields in ANSWERED:
        messages = [USER, {"role": "assistant", "content": "one", **fields}]
        response = await client.post(PATH, json=chat() | {"messages": messages})
        assert (fields, response.status_code) == (fields, 200)


async def test_the_messages_of_other_roles_may_have_more_fields(
    client: httpx2.AsyncClient,
) -> None:
    for message in ASKED:
        response = await client.post(PATH, json=chat() | {"messages": [message]})
        assert (message, response.status_code) == (message, 200)


async def test_each_field_counts_by_its_bytes(service: Service, client: httpx2.AsyncClient) -> None:
    for message in LONG:
        response = await client.post(PATH, json=chat() | {"messages": [message]})
        assert error_of(response) == (400, "request_too_large", "messages")
    assert await service.rows_count() == 0


async def test_a_message_counts_what_it_says(service: Service, client: httpx2.AsyncClient) -> None:
    message = {"role": "assistant", "content": "one", "reasoning": "ä" * 50}
    rest = len(f'{{"reasoning":"{"ä" * 50}"}}'.encode())
    await client.post(PATH, json=chat() | {"messages": [message], "max_tokens": 1})
    tokens = 16 + 8 + len("assistant" + "one") + rest
    assert (await service.attempt()).bound_nano_usd == tokens * 250 + 2000


@pytest.mark.parametrize(
    ("message", "code", "param"),
    [
        ({"content": "one"}, "invalid_request", "messages.1.role"),
        ({"role": None, "content": "one"}, "invalid_request", "messages.1.role"),
        ({"role": ["user"], "content": "one"}, "invalid_request", "messages.1.role"),
        ({"role": "User", "content": "one"}, "invalid_request", "messages.1.role"),
        ("one", "invalid_request", "messages.1"),
        ({"role": "user", "content": 7}, "invalid_request", "messages.1.content"),
        ({"role": "user", "content": {"text": "x"}}, "invalid_request", "messages.1.content"),
        ({"role": "user", "content": "one", "name": 7}, "invalid_request", "messages.1.name"),
        (
            {"role": "tool", "content": "one", "tool_call_id": ["x"]},
            "invalid_request",
            "messages.1.tool_call_id",
        ),
    ],
    ids=str,
)
async def test_a_wrong_message_is_named_by_a_path_of_the_body(
    service: Service, client: httpx2.AsyncClient, message: Any, code: str, param: str
) -> None:
    response = await client.post(PATH, json=chat() | {"messages": [USER, message]})
    assert error_of(response) == (400, code, param)
    assert await service.rows_count() == 0


@pytest.mark.parametrize("role", ROLES)
async def test_a_wrong_message_is_not_repeated(client: httpx2.AsyncClient, role: str) -> None:
    canary = unique("canary")
    wrong = [{"type": canary * 10}, {"type": "text", "text": [canary]}]
    for content in ([part] for part in wrong):
        body = chat() | {"messages": [{"role": role, "content": content}]}
        response = await client.post(PATH, json=body)
        assert response.status_code == (200 if role == "assistant" else 400)
        assert len(response.text) < 500
