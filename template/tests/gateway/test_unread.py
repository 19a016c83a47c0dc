"""Clients that do not read, or read slowly: limits on the buffer and on time."""

import asyncio
import socket
from contextlib import suppress

import pytest
from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from gateway.http.listeners import SEND_BYTES, listen
from gateway.http.server import LOOPBACK
from tests.gateway.test_header_limits import ASKED, answer, connected
from tests.support import Service

LONG = 8 * 2**20
CLOSING = ASKED.replace(b"Host", b"Connection: close\r\nHost")


def answer_at_length(app: FastAPI) -> None:
    """Let `/livez` answer more than systems buffer."""

    async def long(_: Request) -> Response:
        return Response(b"x" * LONG)

    app.router.routes.insert(0, Route("/livez", long))


async def is_cut(writer: asyncio.StreamWriter) -> None:
    """Return when the other side has closed the connection."""
    with suppress(ConnectionError):
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("asked", [ASKED, CLOSING], ids=["kept alive", "closing"])
async def test_an_answer_that_is_not_read_is_not_kept_for_good(
    service: Service, monkeypatch: pytest.MonkeyPatch, asked: bytes
) -> None:
    monkeypatch.setattr("gateway.http.unread.UNREAD_SECONDS", 0.1)
    answer_at_length(service.app)
    async with connected(service) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined] # as all that read are
        writer.write(asked)
        await is_cut(writer)


async def test_an_answer_that_is_read_slowly_comes_whole(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http.unread.UNREAD_SECONDS", 0.5)
    monkeypatch.setattr("gateway.http.unread.LEAST_BYTES", 1)
    answer_at_length(service.app)
    async with connected(service) as (reader, writer):
        writer.write(ASKED)
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(LONG // 2**18):
            await reader.readexactly(2**18)
            await asyncio.sleep(0.03)
        writer.write(ASKED)
        assert "200" in await answer(reader)


async def test_the_buffer_for_a_client_is_bounded() -> None:
    listener, *others = listen(LOOPBACK, 0)
    with listener, socket.socket() as client:
        listener.listen()
        client.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            # Linux doubles what it is asked for.
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * SEND_BYTES
    for other in others:
        other.close()
