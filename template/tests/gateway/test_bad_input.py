"""Bad input outside of bodies: ids, headers and slow senders."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import pytest

from gateway.http.bodies import SMALL_BYTES
from gateway.telemetry.middleware import SMALL_BODY_BYTES
from tests.support import Service, chat, error_of, eventually

CHAT = "/v1/chat/completions"
STRANGE_IDS = ["%00", "pred_%00", "%F0%9F%98%80", "%FF", "..%2f..", "x" * 5000, "pred_" + "0" * 26]


@pytest.mark.parametrize("name", STRANGE_IDS, ids=lambda name: name[:12])
@pytest.mark.parametrize(
    ("method", "suffix"), [("GET", ""), ("DELETE", ""), ("PUT", "/feedback")], ids=str
)
async def test_ids_that_are_none(
    service: Service, client: httpx2.AsyncClient, name: str, method: str, suffix: str
) -> None:
    body = {"rating": "up"} if suffix else None
    response = await client.request(method, f"/v1/predictions/{name}{suffix}", json=body)
    assert error_of(response) == (404, "not_found", None)
    assert "Traceback" not in service.log


@pytest.mark.parametrize("name", ["%00", "%FF", "x" * 5000])
async def test_models_that_are_none(client: httpx2.AsyncClient, name: str) -> None:
    assert error_of(await client.get(f"/v1/models/{name}")) == (404, "model_not_found", "model")


@pytest.mark.parametrize("comment", ["a\x00b", "\x1b[31m", "👩‍👩‍👧 \u202e"], ids=ascii)
async def test_any_comment_is_kept(client: httpx2.AsyncClient, comment: str) -> None:
    made = await client.post(CHAT, json=chat())
    path = f"/v1/predictions/{made.headers['X-Prediction-ID']}"
    feedback = {"rating": "down", "comment": comment}
    assert (await client.put(f"{path}/feedback", json=feedback)).status_code == 200
    assert (await client.get(path)).json()["feedback"] == feedback


@pytest.mark.parametrize(
    ("feedback", "param"),
    [
        ({"rating": "sideways"}, "rating"),
        ({}, "rating"),
        ({"rating": "up", "comment": "x" * 4001}, "comment"),
        ({"rating": "up", "comment": "\ud800"}, "comment"),
        ([], None),
    ],
    ids=ascii,
)
async def test_feedback_that_is_none(
    client: httpx2.AsyncClient, feedback: object, param: str | None
) -> None:
    made = await client.post(CHAT, json=chat())
    path = f"/v1/predictions/{made.headers['X-Prediction-ID']}/feedback"
    headers = {"Content-Type": "application/json"}
    response = await client.put(path, content=json.dumps(feedback).encode(), headers=headers)
    status, code, named = error_of(response)
    assert (status, code) == (422, "invalid_request")
    assert named in {param, None}


async def test_a_body_that_is_no_request_for_a_generation_is_small(
    client: httpx2.AsyncClient,
) -> None:
    """FastAPI reports each of its errors, which is slow."""
    made = await client.post(CHAT, json=chat())
    path = f"/v1/predictions/{made.headers['X-Prediction-ID']}/feedback"
    content = json.dumps({f"x{n}": n for n in range(5000)}).encode()
    assert len(content) > SMALL_BODY_BYTES
    for body in (content, _pieces(content)):
        headers = {"Content-Type": "application/json"}
        response = await client.put(path, content=body, headers=headers)
        assert error_of(response) == (413, "body_too_large", None)
    comment = {"rating": "up", "comment": "\U0001f600" * 2000}
    assert (await client.put(path, json=comment)).status_code == 200


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 10_000):
        yield content[start : start + 10_000]


@pytest.mark.parametrize("key", ["x" * 256, ""], ids=["too long", "empty"])
async def test_idempotency_keys_are_bounded(
    service: Service, client: httpx2.AsyncClient, key: str
) -> None:
    response = await client.post(CHAT, json=chat(), headers={"Idempotency-Key": key})
    status, code, param = error_of(response)
    assert (status, code) == (400, "invalid_request")
    assert param == "idempotency-key"
    assert await service.rows_count() == 0


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=many", "cursor=%00", "cursor=%F0"]
)
async def test_pages_that_are_none(client: httpx2.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/predictions?{query}")
    assert error_of(response) == (422, "invalid_request", query.partition("=")[0])


@pytest.mark.parametrize(
    ("method", "path", "query"),
    [
        ("GET", "/v1/predictions", "Limit=1"),
        ("GET", "/v1/predictions", "limit=1&user_id=usr_1"),
        ("GET", "/v1/predictions/pred_1", "limit=1"),
        ("GET", "/v1/usage", "form=2030-01-01"),
        ("GET", "/v1/usage", "=1"),
        ("GET", "/v1/me", "x"),
        ("GET", "/v1/models", "limit=1"),
        ("GET", "/v1/models/offline/echo", "limit=1"),
        ("POST", CHAT, "stream=true"),
        ("POST", "/v1/predictions", "wait=1"),
    ],
)
async def test_a_filter_that_there_is_not_is_refused(
    client: httpx2.AsyncClient, method: str, path: str, query: str
) -> None:
    response = await client.request(method, f"{path}?{query}", json=chat())
    wrong = 400 if path.startswith(("/v1/models", "/v1/chat")) else 422
    name = query.rpartition("&")[2].partition("=")[0]
    assert error_of(response) == (wrong, "unsupported_parameter", name or None)


@pytest.mark.parametrize(
    "day", ["0", "1700000000", "2030-1-1", "20300101", "2030-W01-1", "2030-01-01T00:00:00", "٢"]
)
@pytest.mark.parametrize("name", ["from", "to"])
async def test_days_that_are_none(client: httpx2.AsyncClient, name: str, day: str) -> None:
    response = await client.get("/v1/usage", params={name: day})
    assert error_of(response) == (422, "invalid_request", name)


@pytest.mark.parametrize("header", ["Authorization", "Prefer", "X-Request-ID", "Content-Type"])
async def test_headers_that_are_no_text(client: httpx2.AsyncClient, header: str) -> None:
    response = await client.post(CHAT, content=b"{}", headers={header.encode(): b"\xff\x80"})
    assert 400 <= response.status_code < 500
    assert set(response.json()) == {"error"}


async def test_a_length_may_begin_with_zeros(service: Service) -> None:
    user = await service.create_user()
    headers = [f"Authorization: {user.headers['Authorization']}", f"Content-Length: {0:05000}"]
    async with asyncio.timeout(5), _begun(service, "POST", CHAT, *headers) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
    assert int(head.split()[1]) == 400


@pytest.mark.parametrize("length", ["Content-Length: 100", "Transfer-Encoding: chunked"])
async def test_a_body_that_does_not_come_ends_the_request(
    service: Service, monkeypatch: pytest.MonkeyPatch, length: str
) -> None:
    monkeypatch.setattr("gateway.telemetry.middleware.BODY_SECONDS", 0.05)
    user = await service.create_user()
    headers = [f"Authorization: {user.headers['Authorization']}", length]
    async with asyncio.timeout(5), _begun(service, "POST", CHAT, *headers) as reader:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readuntil(b"}}")
    assert int(head.split()[1]) == 408
    assert json.loads(body)["error"]["message"].startswith("The body took too long")
    assert await service.rows_count() == 0
    assert service.access_events()[-1]["status"] == 408


async def test_few_large_bodies_of_a_caller_are_read_at_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.bodies.AT_ONCE", 1)
    user, other = await service.create_user(), await service.create_user()
    headers = [f"Authorization: {user.headers['Authorization']}", f"Content-Length: {2**20}"]
    large = chat("x" * SMALL_BYTES)
    async with _begun(service, "POST", CHAT, *headers):
        assert (await service.client(user).post(CHAT, json=chat())).status_code == 200
        waiting = asyncio.create_task(service.client(user).post(CHAT, json=large))
        for _ in range(3):
            answer = await service.client(other).post(CHAT, json=large)
            assert error_of(answer) == (400, "request_too_large", "messages")
        assert not waiting.done()
    assert (await waiting).status_code == 400


async def test_a_client_that_leaves_before_its_body_came_is_no_crash(service: Service) -> None:
    user = await service.create_user()
    headers = [f"Authorization: {user.headers['Authorization']}", "Content-Length: 100"]
    async with _begun(service, "POST", CHAT, *headers):
        assert service.access_events() == []

    async def recorded() -> bool:
        return bool(service.access_events())

    await eventually(recorded)
    (event,) = service.access_events()
    assert (event["status"], event["level"], event["user_id"]) == (499, "info", user.id)
    assert "Traceback" not in service.log
    assert await service.rows_count() == 0


@asynccontextmanager
async def _begun(
    service: Service, method: str, path: str, *headers: str
) -> AsyncIterator[asyncio.StreamReader]:
    """Send only the start of a request, and yield the reader of the answer."""
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        yield reader
    finally:
        writer.close()
        await writer.wait_closed()
