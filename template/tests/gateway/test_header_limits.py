"""Slow and oversized heads of requests: limits on time and memory."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import Mock, patch
from urllib.parse import urlsplit

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.http.header_limits import MAX_HEADERS, MAX_QUEUED, BoundedProtocol
from tests.support import PATIENCE_SECONDS, Service, chat

ASKED = b"GET /livez HTTP/1.1\r\nHost: service\r\n\r\n"
POSTED = b"POST /livez HTTP/1.1\r\nHost: service\r\nContent-Length: 1\r\n\r\n"


@asynccontextmanager
async def connected(
    service: Service,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield reader, writer
    finally:
        writer.close()


async def answer(reader: asyncio.StreamReader) -> str:
    """The status line of an answer that is read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
    return head.splitlines()[0]


HALF_ASKED = b"GET /livez HTTP/1.1\r\nHost: s"


@pytest.mark.parametrize(
    ("asked", "begun"),
    # After an answer, an idle connection has uvicorn's `timeout_keep_alive`.
    [(0, b""), (0, HALF_ASKED), (0, b"\r\n"), (1, HALF_ASKED), (1, b"\r\n")],
)
async def test_a_connection_without_a_request_is_closed(
    service: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes, asked: int
) -> None:
    monkeypatch.setattr("gateway.http.header_limits.HEAD_SECONDS", 0.05)
    async with connected(service) as (reader, writer):
        for _ in range(asked):
            writer.write(ASKED)
            assert "200" in await answer(reader)
        writer.write(begun)
        assert await reader.read() == b""


async def test_a_slow_answer_does_not_close_the_connection(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.header_limits.HEAD_SECONDS", 0.05)
    async with connected(service) as (reader, writer):
        writer.write(POSTED)
        await asyncio.sleep(0.2)
        writer.write(b"x" + ASKED)
        assert "405" in await answer(reader)
        assert "200" in await answer(reader)


def connection(service: Service) -> tuple[BoundedProtocol, Mock]:
    """The protocol of a connection, and its transport."""
    protocol = BoundedProtocol(uvicorn.Config(service.app, log_config=None), ServerState(), {})
    transport = Mock(asyncio.Transport)
    transport.is_closing.return_value = False
    protocol.connection_made(transport)
    return protocol, transport


CHUNKED = b"POST /livez HTTP/1.1\r\nHost: service\r\nTransfer-Encoding: chunked\r\n\r\n"
LONG_HEADER = b"X-Long: " + 1000 * b"x" + b"\r\n"


async def refusal(reader: asyncio.StreamReader) -> tuple[str, str]:
    """The status line and the id of a refusal. Checks its format."""
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    first, *headers = head.decode().splitlines()
    (request_id,) = (line.split()[1] for line in headers if line.startswith("X-Request-ID"))
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "code", "param"}
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_request")
    return first, request_id


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: "], ids=ascii)
async def test_a_head_that_does_not_end_is_refused(service: Service, beginning: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(beginning)
        block = b"x" * 4096
        for _ in range(18):
            writer.write(block)
            await writer.drain()
        assert "431" in (await refusal(reader))[0]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /livez HTTP/1.1\r\n" + 101 * b"X-Many: 1\r\n" + b"\r\n",
        b"GET /livez HTTP/1.1\r\n" + 10_000 * b"X-Many: 1\r\n" + b"\r\n",
        b"GET /livez HTTP/1.1\r\n" + 66 * LONG_HEADER + b"\r\n",
        b"GET /livez HTTP/1.1\r\nX-Long: " + 70_000 * b"x" + b"\r\n\r\n",
        b"GET /" + 70_000 * b"x" + b" HTTP/1.1\r\n\r\n",
        CHUNKED + b"0\r\n" + 101 * b"X-Trailer: 1\r\n" + b"\r\n",
        CHUNKED + b"0\r\nX-Trailer: " + 70_000 * b"x",
    ],
    ids=[
        *("101 headers", "10000 headers", "66 KB", "long header", "long address"),
        *("101 trailers", "long trailer"),
    ],
)
@pytest.mark.parametrize("size", [10**9, 1000], ids=["one segment", "many segments"])
async def test_a_head_that_is_too_large_is_refused(
    service: Service, sent: bytes, size: int
) -> None:
    protocol, transport = connection(service)
    with patch.object(protocol, "_start_asgi_task"):
        for start in range(0, len(sent), size):
            protocol.data_received(sent[start : start + size])
            if transport.write.called:
                break
    protocol.connection_lost(None)
    assert transport.write.call_args.args[0].startswith(b"HTTP/1.1 431 ")
    assert len(protocol.headers) <= MAX_HEADERS


async def test_a_body_in_small_chunks_is_read(service: Service) -> None:
    user = await service.create_user()
    body = json.dumps(chat("x" * 1500)).encode()
    chunks = b"".join(b"1\r\n%b\r\n" % bytes([byte]) for byte in body) + b"0\r\n\r\n"
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: service\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: application/json\r\nAuthorization: {user.headers['Authorization']}\r\n\r\n"
    )
    async with connected(service) as (reader, writer):
        writer.write(head.encode() + chunks)
        assert "200" in await answer(reader)


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"FETCH / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\x80 HTTP/1.1\r\nBad Name: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\n\r\n",
        b"GET http:// HTTP/1.1\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",  # how TLS begins
    ],
    ids=ascii,
)
async def test_invalid_http_gets_an_error_with_an_id(service: Service, sent: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(sent)
        status, request_id = await refusal(reader)
    assert "400" in status
    (event,) = [each for each in service.events if each.get("request_id") == request_id]
    assert (event["status"], event["code"]) == (400, "invalid_request")


async def test_invalid_input_after_a_request_does_not_end_its_answer(service: Service) -> None:
    async with connected(service) as (reader, writer):
        writer.write(ASKED + b"nonsense\r\n\r\n")
        assert "200" in await answer(reader)
        assert await reader.read() == b""


async def test_nothing_is_written_into_an_answer_that_is_under_way(service: Service) -> None:
    user = await service.create_user()
    body = json.dumps(chat(model="offline/echo", stream=True)).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nAuthorization: {user.headers['Authorization']}\r\n\r\n"
    )
    async with connected(service) as (reader, writer):
        writer.write(head.encode() + body)
        assert (await reader.read(12)).endswith(b"200")
        writer.write(b"nonsense\r\n\r\n")
        assert b"HTTP/1.1" not in await reader.read()


async def test_nothing_is_read_while_requests_are_queued(service: Service) -> None:
    protocol, transport = connection(service)
    with patch.object(protocol, "_start_asgi_task"):
        protocol.data_received(3 * ASKED)
        transport.pause_reading.assert_called_once()
        protocol.flow.resume_reading()  # as a request that waits for its body does
        protocol.on_response_complete()
        transport.resume_reading.assert_not_called()
        protocol.on_response_complete()
        transport.resume_reading.assert_called_once()
    protocol.connection_lost(None)


async def test_few_requests_are_queued_and_those_are_answered(service: Service) -> None:
    async with connected(service) as (reader, writer):
        writer.write(10 * MAX_QUEUED * ASKED)
        answers = [await answer(reader) for _ in range(1 + MAX_QUEUED)]
        assert all("200" in status for status in answers)
        assert await reader.read() == b""


UPGRADE = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"


@pytest.mark.parametrize(
    "announced",
    [b"Content-Length: %d\r\n" % len(ASKED), b"Transfer-Encoding: chunked\r\n"],
    ids=["length", "chunks"],
)
async def test_a_body_after_an_upgrade_is_no_request(service: Service, announced: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(b"POST /livez HTTP/1.1\r\nHost: service\r\n" + announced + UPGRADE + b"\r\n")
        await writer.drain()
        writer.write(ASKED)
        assert "400" in (await refusal(reader))[0]


async def test_an_upgrade_is_not_done_and_the_request_is_answered(service: Service) -> None:
    async with connected(service) as (reader, writer):
        writer.write(ASKED.replace(b"\r\n\r\n", b"\r\n" + UPGRADE + b"\r\n") + ASKED)
        assert "200" in await answer(reader)
        assert await reader.read() == b""
    assert not [event for event in service.events if event["level"] == "warning"]
