"""Requests of `/v1/responses`: refusals with their paths, and the translation into a chat."""

from typing import Any

import httpx2
import pytest

from gateway.errors import InvalidRequest, UnsupportedParameter
from gateway.providers.parameters import BOUNDED, CHAT
from gateway.providers.responses.request import chat_body
from tests.support import Service, error_of
from tests.test_responses import PATH, ask

IMAGE = {"type": "input_image", "image_url": "https://example.com/x.png", "detail": "low"}
CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "sunny"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": True}


def text(kind: str, words: Any) -> dict[str, Any]:
    return {"type": kind, "text": words}


def message(role: str, content: Any, **rest: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **rest}


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ("one", [message("user", "one")]),
        ([message("user", "one")], [message("user", "one")]),
        ([message("developer", "be kind")], [message("system", "be kind")]),
        ([message("user", [text("input_text", "one")])], [message("user", "one")]),
        (
            [message("user", [text("input_text", "one"), IMAGE])],
            [
                message(
                    "user",
                    [
                        text("text", "one"),
                        {
                            "type": "image_url",
                            "image_url": {"url": IMAGE["image_url"], "detail": "low"},
                        },
                    ],
                )
            ],
        ),
        (
            [message("user", [text("input_text", "one"), text("input_text", "two")])],
            [message("user", [text("text", "one"), text("text", "two")])],
        ),
        (
            [message("assistant", [text("output_text", "o"), text("output_text", "ne")])],
            [message("assistant", "one")],
        ),
        (
            [message("assistant", [{"type": "refusal", "refusal": "no"}])],
            [message("assistant", "no")],
        ),
        (
            [
                message("user", "weather?"),
                {"type": "reasoning", "id": "rs_1", "summary": []},
                message("assistant", [text("output_text", "Let me look.")], type="message"),
                CALL,
                {**CALL, "call_id": "c2"},
                RESULT,
                {
                    **RESULT,
                    "call_id": "c2",
                    "output": [text("input_text", "ra"), text("input_text", "in")],
                },
            ],
            [
                message("user", "weather?"),
                message(
                    "assistant",
                    "Let me look.",
                    tool_calls=[
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        },
                        {
                            "id": "c2",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        },
                    ],
                ),
                message("tool", "sunny", tool_call_id="c1"),
                message("tool", "ra\nin", tool_call_id="c2"),
            ],
        ),
        (
            [
                {"type": "reasoning", "content": [text("reasoning_text", "a")], "summary": []},
                message("assistant", "one"),
                {"type": "reasoning", "summary": [text("summary_text", "b")]},
                message("user", "two"),
            ],
            [
                message("assistant", "one", reasoning="a", reasoning_content="a"),
                message("user", "two"),
            ],
        ),
        (
            [CALL, RESULT, {**CALL, "call_id": "c2"}],
            [
                message(
                    "assistant",
                    None,
                    tool_calls=[
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                ),
                message("tool", "sunny", tool_call_id="c1"),
                message(
                    "assistant",
                    None,
                    tool_calls=[
                        {
                            "id": "c2",
                            "type": "function",
                            "function": {"name": "f", "arguments": "{}"},
                        }
                    ],
                ),
            ],
        ),
    ],
    ids=lambda value: None,
)
def test_input_becomes_messages(given: Any, messages: Any) -> None:
    assert chat_body({"input": given}, CHAT) == {"messages": messages}


def test_instructions_come_first() -> None:
    body = chat_body({"input": "one", "instructions": "be kind"}, CHAT)
    assert body["messages"] == [message("system", "be kind"), message("user", "one")]


NESTED = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object"}, "strict": True},
}
SCHEMA = {"name": "answer", "schema": {"type": "object"}, "strict": True}


@pytest.mark.parametrize(
    ("given", "chat"),
    [
        ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
        ({"temperature": 0.0, "top_p": 0.5}, {"temperature": 0.0, "top_p": 0.5}),
        ({"tools": [FUNCTION]}, {"tools": [NESTED]}),
        ({"tools": []}, {}),
        (
            {"tools": [FUNCTION], "tool_choice": "required"},
            {"tools": [NESTED], "tool_choice": "required"},
        ),
        (
            {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
            {"tools": [NESTED], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (
            {
                "tools": [FUNCTION, {**FUNCTION, "name": "g"}],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": "f"}],
                },
            },
            {"tools": [NESTED], "tool_choice": "required"},
        ),
        (
            {"tools": [FUNCTION], "parallel_tool_calls": False},
            {"tools": [NESTED], "parallel_tool_calls": False},
        ),
        ({"text": {"format": {"type": "text"}}}, {}),
        (
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
        ),
        (
            {"text": {"format": {"type": "json_schema", **SCHEMA}, "verbosity": "low"}},
            {"response_format": {"type": "json_schema", "json_schema": SCHEMA}, "verbosity": "low"},
        ),
        ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
        ({"top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}),
        ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
        ({"include": ["reasoning.encrypted_content"]}, {}),
        ({"truncation": "auto", "metadata": {"a": "b"}}, {}),
        ({"user": "u", "prompt_cache_key": "k"}, {"prompt_cache_key": "k"}),
    ],
    ids=str,
)
def test_parameters_become_those_of_a_chat(given: Any, chat: Any) -> None:
    body = chat_body({"input": "one", **given}, CHAT)
    del body["messages"]
    assert body == chat


def test_a_parameter_that_the_server_does_not_take_is_named_as_it_was_given() -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        chat_body({"input": "one", "text": {"verbosity": "low"}}, {"max_tokens": BOUNDED})
    assert caught.value.param == "text.verbosity"
    body = chat_body({"input": "one", "max_output_tokens": 5}, {"max_tokens": BOUNDED})
    assert body["max_tokens"] == 5


def test_a_function_gives_text_where_it_is_translated() -> None:
    with pytest.raises(InvalidRequest) as caught:
        chat_body({"input": [CALL, {**RESULT, "output": [IMAGE]}]}, CHAT)
    assert caught.value.param == "input.1.output.0.type"


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"input": None}, "invalid_request", "input"),
        ({"input": []}, "invalid_request", "input"),
        ({"input": ["one"]}, "invalid_request", "input.0"),
        (
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "unsupported_parameter",
            "input.0",
        ),
        ({"input": [{"id": "msg_1"}]}, "unsupported_parameter", "input.0"),
        (
            {"input": [{"type": "web_search_call", "id": "ws_1"}]},
            "unsupported_parameter",
            "input.0.type",
        ),
        ({"input": [{"type": ["x"], "id": "ws_1"}]}, "unsupported_parameter", "input.0.type"),
        ({"input": [message("tool", "x")]}, "invalid_request", "input.0.role"),
        ({"input": [{"role": "user"}]}, "invalid_request", "input.0"),
        ({"input": [message("user", 1)]}, "invalid_request", "input.0.content"),
        ({"input": [message("user", ["x"])]}, "invalid_request", "input.0.content.0"),
        ({"input": [message("user", [{"text": "x"}])]}, "invalid_request", "input.0.content.0"),
        (
            {"input": [message("user", [text("input_text", 1)])]},
            "invalid_request",
            "input.0.content.0.text",
        ),
        (
            {"input": [message("user", [{"type": "input_file", "file_id": "file_1"}])]},
            "unsupported_parameter",
            "input.0.content.0.type",
        ),
        (
            {"input": [message("user", [{**IMAGE, "file_id": "file_1"}])]},
            "unsupported_parameter",
            "input.0.content.0.file_id",
        ),
        ({"input": [message("user", [IMAGE])]}, "invalid_request", "input.0.content.0.type"),
        ({"input": [{**CALL, "arguments": {}}]}, "invalid_request", "input.0.arguments"),
        ({"input": [{**RESULT, "output": None}]}, "invalid_request", "input.0.output"),
        ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools.0.type"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "unsupported_parameter", "tools.0.type"),
        ({"tools": [{"name": "f"}]}, "unsupported_parameter", "tools.0"),
        ({"tools": [{"type": "function"}]}, "invalid_request", "tools.0"),
        ({"tool_choice": "any"}, "invalid_request", "tool_choice"),
        ({"tool_choice": {"type": "mcp"}}, "unsupported_parameter", "tool_choice.type"),
        ({"text": {"format": {"type": "xml"}}}, "invalid_request", "text.format.type"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "invalid_request",
            "text.format",
        ),
        ({"max_output_tokens": 65}, "request_too_large", "max_output_tokens"),
        ({"input": "x" * 2001}, "request_too_large", "input"),
        ({"reasoning": {"mode": "pro"}}, "invalid_request", "reasoning.mode"),
        ({"include": ["file_search_call.results"]}, None, None),
        ({"include": ["everything"]}, "unsupported_parameter", "include.0"),
    ],
    ids=str,
)
async def test_an_error_names_a_path_that_exists(
    service: Service,
    client: httpx2.AsyncClient,
    body: dict[str, Any],
    code: str | None,
    param: str | None,
) -> None:
    response = await client.post(PATH, json={**ask(), **body})
    if code is None:
        assert response.status_code == 200
        return
    assert error_of(response)[1:] == (code, param)
    assert await service.rows_count() == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ""),
        ("one", "one"),
        ([], ""),
        ([text("output_text", "one"), {"type": "of_tomorrow", "x": [1]}, 1, None], "one"),
        ([{"type": "text", "text": "one"}, {"type": "refusal", "refusal": "no"}], "oneno"),
        ([{"type": "output_text", "text": None}, {"type": ["x"], "text": "one"}], "one"),
        (7, ""),
    ],
    ids=str,
)
async def test_an_assistants_message_is_accepted_in_any_form(
    client: httpx2.AsyncClient, content: Any, said: str
) -> None:
    item = message("assistant", content, type="message", annotations=[], audio=None)
    thought = {"type": "reasoning", "summary": "x", "content": [{"type": "thinking", "y": 1}]}
    body = ask([item, thought, message("user", "two")])
    assert (await client.post(PATH, json=body)).status_code == 200
    assert chat_body(body, CHAT)["messages"][0]["content"] == said


LONG = "x" * 2001


@pytest.mark.parametrize(
    "body",
    [
        {"instructions": LONG},
        {"input": [message("user", LONG)]},
        {"input": [message("user", [text("input_text", LONG)])]},
        {"input": [message("assistant", [text("output_text", LONG)])]},
        {"input": [message("assistant", {"x": LONG})]},
        {"input": [message("user", "x", of_tomorrow=LONG)]},
        {"input": [{**CALL, "arguments": LONG}]},
        {"input": [{**RESULT, "output": LONG}]},
        {"input": [{**RESULT, "output": [text("input_text", LONG)]}]},
        {"input": [{"type": "reasoning", "summary": [text("summary_text", LONG)]}]},
        {"input": [{"type": "reasoning", "encrypted_content": LONG}]},
        {"input": [message("user", "x" * 200)] * 10},
        {"tools": [{**FUNCTION, "description": LONG}]},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"title": LONG}}}},
    ],
    ids=lambda body: str(body).replace(LONG, "…"),
)
async def test_every_text_is_bounded(
    service: Service, client: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    response = await client.post(PATH, json={**ask(), **body})
    assert error_of(response) == (400, "request_too_large", "input")
    assert await service.rows_count() == 0
