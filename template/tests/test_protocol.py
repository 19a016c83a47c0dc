"""Clients that connect and do not ask: nothing is kept for them for good."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from tests.support import PATIENCE_SECONDS, Service

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
    # Who has asked and begins nothing has uvicorn's `timeout_keep_alive`.
    [(0, b""), (0, HALF_ASKED), (0, b"\r\n"), (1, HALF_ASKED), (1, b"\r\n")],
)
async def test_who_does_not_ask_is_hung_up_on(
    service: Service, monkeypatch: pytest.MonkeyPatch, begun: bytes, asked: int
) -> None:
    monkeypatch.setattr("app.protocol.HEAD_SECONDS", 0.05)
    async with connected(service) as (reader, writer):
        for _ in range(asked):
            writer.write(ASKED)
            assert "200" in await answer(reader)
        writer.write(begun)
        assert await reader.read() == b""


async def test_who_has_asked_has_the_time_that_the_answer_takes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.protocol.HEAD_SECONDS", 0.05)
    async with connected(service) as (reader, writer):
        writer.write(POSTED)
        await asyncio.sleep(0.2)
        writer.write(b"x" + ASKED)
        assert "405" in await answer(reader)
        assert "200" in await answer(reader)


@pytest.mark.parametrize("beginning", [b"GET /", b"GET / HTTP/1.1\r\nX-Long: "], ids=ascii)
async def test_a_head_that_does_not_end_is_refused(service: Service, beginning: bytes) -> None:
    async with connected(service) as (reader, writer):
        writer.write(beginning)
        block = b"x" * 4096
        for _ in range(17):
            writer.write(block)
            await writer.drain()
        assert "400" in await answer(reader)
        assert await reader.read() == b""
