"""Malformed, mistyped and large bodies: a helpful error, and no row in the database."""

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from gateway.http.bodies import MAX_ERRORS, MAX_PARTS
from gateway.http.error_places import place_of
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of, unique

CHAT = "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


def wrong(path: str) -> int:
    """The status of a wrong request: OpenAI's clients expect 400 on OpenAI's routes."""
    return 422 if path == "/v1/predictions" else 400


@pytest.fixture(params=[CHAT, "/v1/embeddings", "/v1/predictions"])
def path(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1e999",
        b"\xff\xfe",
        b'{"model": NaN',
        b"[" * 100_000,
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b'{"model": "' + b"9" * 5000 + b'"}',
        b'{"model": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda content: repr(content[:12]),
)
async def test_invalid_requests(
    service: Service, client: httpx2.AsyncClient, path: str, content: bytes
) -> None:
    status, code, _ = error_of(await client.post(path, content=content, headers=JSON))
    assert (status, code) == (wrong(path), "invalid_request")
    assert await service.rows_count() == 0
    assert "Traceback" not in service.log


async def test_other_content_types_are_no_json(client: httpx2.AsyncClient, path: str) -> None:
    response = await client.post(path, data={"model": "offline/echo"})
    status, code, _ = error_of(response)
    assert (status, code) == (wrong(path), "invalid_request")
    assert "application/json" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": None}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": "one"}, "messages"),
        ({"messages": [{}]}, "messages.0.role"),
        ({"messages": [{"role": "wizard", "content": "one"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": "one"}] * 2049}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 17}, "n"),
        ({"model": 1}, "model"),
        ({"model": None}, "model"),
        ({"stream": "perhaps"}, "stream"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "8"}, "max_tokens"),
        ({"max_tokens": 8.5}, "max_tokens"),
        ({"stop": 7}, "stop"),
        ({"stop": ["x", 7]}, "stop.1"),
        ({"tool_choice": 7}, "tool_choice"),
        ({"tools": ["x"]}, "tools.0"),
        ({"logit_bias": {"1": "x"}}, "logit_bias.1"),
        ({"stream_options": {"include_usage": 7}}, "stream_options.include_usage"),
        ({"metadata": "x"}, "metadata"),
    ],
    ids=str,
)
async def test_the_wrong_field_is_named(
    service: Service, client: httpx2.AsyncClient, change: dict[str, Any], param: str
) -> None:
    response = await client.post(CHAT, json=chat() | change)
    assert error_of(response) == (400, "invalid_request", param)
    assert await service.rows_count() == 0


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
@pytest.mark.parametrize("field", ["logit_bias", "response_format"])
async def test_numbers_are_finite(
    service: Service, client: httpx2.AsyncClient, field: str, number: str
) -> None:
    content = json.dumps(chat() | {field: {"1": "number"}}).replace('"number"', number)
    status, code, _ = error_of(await client.post(CHAT, content=content.encode(), headers=JSON))
    assert (status, code) == (400, "invalid_request")
    assert await service.rows_count() == 0


async def test_errors_do_not_echo_the_input(client: httpx2.AsyncClient) -> None:
    canary = unique("canary")
    answers = [
        await client.post(CHAT, json={"model": canary, "messages": canary}),
        await client.post(CHAT, json=chat(model=canary)),
        await client.post(CHAT, json=chat(temperature=canary)),
        await client.post(CHAT, content=f'{{"{canary}"'.encode(), headers=JSON),
        await client.get(f"/v1/{canary}"),
    ]
    assert all(answer.status_code >= 400 for answer in answers)
    assert not any(canary in answer.text for answer in answers)


@pytest.mark.parametrize(
    "text", ["a\x00b", "\x07\x1b[31m", "👩‍👩‍👧 \u202e", "\\u0000 \\ud800"], ids=ascii
)
async def test_any_unicode_text_is_answered_and_kept(
    service: Service, client: httpx2.AsyncClient, text: str
) -> None:
    response = await client.post(CHAT, json=chat(text))
    assert response.json()["choices"][0]["message"]["content"] == f"You said: {text}"
    assert (await service.prediction()).input["messages"][0]["content"] == text


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": "\ud800"}]},
        {"messages": [{"role": "user", "content": "one", "name": "\udfff"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "\ud800"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "\ud800": 1}]}]},
        {"model": "\ud800"},
        {"\ud800": 1},
    ],
    ids=["content", "name", "part", "name of a part", "model", "name of a field"],
)
async def test_lone_surrogates_are_refused(
    service: Service, client: httpx2.AsyncClient, body: dict[str, Any]
) -> None:
    content = json.dumps(chat() | body).encode()
    response = await client.post(CHAT, content=content, headers=JSON)
    assert response.status_code in {400, 404}
    assert response.json()["error"]["code"] != "internal_error"
    assert await service.rows_count() == 0


async def test_a_body_of_the_largest_size_passes(start: Start) -> None:
    body = json.dumps(chat("x" * 1500)).encode()
    service = await start(max_body_bytes=len(body))
    client = service.client(await service.create_user())
    assert (await client.post(CHAT, content=body, headers=JSON)).status_code == 200


@pytest.mark.parametrize("is_length_told", [True, False])
async def test_a_body_over_the_largest_size_is_refused(start: Start, is_length_told: bool) -> None:
    body = json.dumps(chat("x" * 1500)).encode()
    service = await start(max_body_bytes=len(body) - 1)
    client = service.client(await service.create_user())
    content = body if is_length_told else _in_pieces(body)
    response = await client.post(CHAT, content=content, headers=JSON)
    assert error_of(response) == (413, "body_too_large", None)
    assert await service.rows_count() == 0


async def test_a_body_over_the_largest_size_is_too_large_whatever_its_type(start: Start) -> None:
    service = await start(max_body_bytes=1024)
    client = service.client(await service.create_user())
    response = await client.post(CHAT, content=b"x" * 1025)
    assert error_of(response) == (413, "body_too_large", None)


@pytest.mark.parametrize(
    "part", ["[]", "{}", '"x"', '"\\\\\\""'], ids=["list", "object", "text", "escapes"]
)
async def test_a_body_of_very_many_parts_is_refused(
    client: httpx2.AsyncClient, path: str, part: str
) -> None:
    content = f'{{"model": "offline/echo", "x": [{",".join([part] * (MAX_PARTS + 1))}]}}'
    response = await client.post(path, content=content.encode(), headers=JSON)
    assert error_of(response) == (wrong(path), "invalid_request", None)
    assert str(MAX_PARTS) in response.json()["error"]["message"]


async def test_many_parts_of_a_text_are_one(client: httpx2.AsyncClient) -> None:
    text = '[{"x":' * MAX_PARTS
    expected = (400, "request_too_large", "messages")
    assert error_of(await client.post(CHAT, json=chat(text))) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({f"x{n}": n for n in range(1000)}, (400, "unsupported_parameter", "x0")),
        ({"logit_bias": {f"x{n}": "x" for n in range(1000)}}, (400, "invalid_request", None)),
        ({"stop": [1] * 1000}, (400, "invalid_request", "stop.0")),
        ({"tools": [1] * 1000}, (400, "invalid_request", "tools.0")),
        ({"messages": [1] * 1000}, (400, "invalid_request", "messages.0")),
    ],
    ids=["unknown names", "values", "stop", "tools", "messages"],
)
async def test_only_one_of_many_errors_is_reported(
    client: httpx2.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    expected: tuple[int, str, str | None],
) -> None:
    counts = []

    def count(errors: Any, body: Any) -> Any:
        counts.append(len(errors))
        return place_of(errors, body)

    monkeypatch.setattr("gateway.http.exception_handlers.place_of", count)
    assert error_of(await client.post(CHAT, json=chat() | change)) == expected
    assert sum(counts) <= MAX_ERRORS


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat() | {"LONG": 1}),
        (CHAT, chat(model="LONG")),
        (CHAT, chat() | {"messages": [{"role": "LONG", "content": "x"}]}),
        (CHAT, chat() | {"messages": [{"role": "user", "content": [{"type": "LONG"}]}]}),
        (CHAT, chat() | {"messages": [{"role": "user", "content": "x", "LONG": "LONG"}]}),
        (CHAT, chat() | {"tools": [{"type": "LONG"}], "tool_choice": {"type": "LONG"}}),
        (CHAT, chat() | {"response_format": {"type": "LONG"}, "service_tier": "LONG"}),
        (CHAT, chat() | {"logit_bias": {"LONG": "x"}}),
        (CHAT, chat() | {"stream_options": {"LONG": 1}}),
        ("/v1/responses", {"model": "offline/echo", "input": [{"type": "LONG"}]}),
        ("/v1/responses", {"model": "offline/echo", "input": "x", "tools": [{"type": "LONG"}]}),
        ("/v1/responses", {"model": "offline/echo", "input": "x", "include": ["LONG"]}),
        ("/v1/responses", {"model": "offline/echo", "input": "x", "text": {"LONG": 1}}),
        ("/v1/embeddings", {"model": "offline/embedding", "input": "x", "LONG": 1}),
        ("/v1/predictions", {"model": "offline/echo", "input": {"prompt": "x", "LONG": 1}}),
        ("/v1/predictions", {"model": "offline/echo", "input": {"messages": [{"role": "LONG"}]}}),
    ],
    ids=str,
)
async def test_no_error_repeats_a_long_input(
    service: Service, client: httpx2.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    content = json.dumps(body).replace("LONG", "x" * 400_000).encode()
    response = await client.post(path, content=content, headers=JSON)
    assert response.status_code in {400, 404, 422}
    assert "x" * 101 not in response.text
    assert "x" * 101 not in service.log


async def test_a_client_that_sends_far_too_much_gets_the_answer(
    client: httpx2.AsyncClient,
) -> None:
    """A connection that closes at once looks like a network fault, which clients retry."""
    response = await client.post(CHAT, json=chat("x" * 8 * 2**20))
    assert error_of(response) == (413, "body_too_large", None)
    assert (await client.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nothing"), ("POST", "/v1/nothing"), ("GET", "/v1/predictions/")]
)
async def test_unknown_addresses(client: httpx2.AsyncClient, method: str, path: str) -> None:
    assert error_of(await client.request(method, path)) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("path", "methods"),
    [(CHAT, "POST"), ("/v1/predictions", "GET, POST"), ("/v1/predictions/none", "DELETE, GET")],
)
async def test_wrong_method(client: httpx2.AsyncClient, path: str, methods: str) -> None:
    response = await client.patch(path)
    assert error_of(response) == (405, "method_not_allowed", None)
    assert response.headers["Allow"] == methods


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for piece in _pieces(body):
        yield piece


def _pieces(body: bytes, size: int = 500) -> Iterator[bytes]:
    yield from (body[start : start + size] for start in range(0, len(body), size))
