"""Limits on the head of a request: time, size, and HTTP that is refused by the parser."""

import asyncio
import logging
from collections.abc import Sized
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.errors import error_body
from gateway.http.unread import UnreadTimer
from gateway.ids import new_id
from gateway.json_text import encode
from gateway.telemetry.logging import log

HEAD_SECONDS = 30.0
HEAD_BYTES = 64 * 1024
MAX_HEADERS = 100
# Pipelined requests: each takes a hundred times its bytes in memory.
MAX_QUEUED = 32
# The overhead that a client may send per byte of a body: a chunk of one byte has five more.
OVERHEAD_PER_BYTE = 8
CODE = "invalid_request"
REFUSALS = {
    400: (
        "The request is not valid HTTP/1.1, or has a body and asks for another protocol; send "
        "valid HTTP/1.1 (RFC 9112), without Upgrade."
    ),
    431: (
        f"The request's address and headers are over {HEAD_BYTES} bytes or {MAX_HEADERS} headers; "
        "send less."
    ),
}


class Refused(Exception):
    """Stops the parser."""


class QueueingFlow(FlowControl):
    """Pauses reading while requests are queued. uvicorn's class resumes with each answer, and
    while a body is awaited.
    """

    def __init__(self, transport: asyncio.Transport, queue: Sized) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        if not self._queue:  # A request before queued ones has arrived completely.
            super().resume_reading()


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits, and with the service's format for refusals.

    uvicorn has no time-out for a request's head, and no limit on the size of a head, on queued
    requests and on the time for which a client does not read.
    """

    _unread: UnreadTimer

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._hang_up: asyncio.TimerHandle | None = None
        # The current request: its number, whether it is incomplete, and whether its head was read.
        self._number = 0
        self._has_begun = False
        self._has_head = False
        # The bytes and the number of its headers and trailers, and all bytes outside of its body:
        # the parser buffers an incomplete header.
        self._header_bytes = 0
        self._headers = 0
        self._overhead = 0

    def connection_made(  # type: ignore[override] # as uvicorn's is
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self.flow = QueueingFlow(transport, self.pipeline)
        self._unread = UnreadTimer(self.loop, transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if getattr(self.cycle, "response_complete", True):
            self._expect_head()
        # The bytes of a segment across two requests cannot be assigned to one of them.
        first = self._number + (not self._has_begun)
        super().data_received(data)
        if self._has_begun and self._number == first:
            self._overhead += len(data)
            if self._overhead > HEAD_BYTES:
                self.send_400_response(REFUSALS[431])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._number += 1
        self._has_begun, self._has_head = True, False
        self._header_bytes = self._headers = self._overhead = 0
        if len(self.pipeline) >= MAX_QUEUED:
            raise Refused("too many pipelined requests")

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._count(len(name) + len(value))
        if not self._has_head:  # Trailers are ignored.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._expect_no_head()
        if self.parser.should_upgrade() and any(map(_announces_body, self.headers)):
            raise Refused("the parser would read the body as another request")
        super().on_headers_complete()
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._overhead -= OVERHEAD_PER_BYTE * len(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._has_begun = self._has_head = False

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_head()
        self._unread.stop()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.stop()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.flow.resume_reading()  # Again: the last request has left the queue only now.
        # The connection waits, or closes, once the client has read everything.
        self._unread.start()

    def send_400_response(self, msg: str) -> None:
        """Refuse the invalid input, unless an earlier request is still being answered."""
        if self.transport.is_closing():
            return
        if self._has_head and self.cycle.response_started:
            self.transport.close()
        elif not self._has_head and not getattr(self.cycle, "response_complete", True):
            self.cycle.keep_alive = False
        else:
            self._refuse(431 if self._is_too_large else 400)

    def _unsupported_upgrade_warning(self) -> None:
        """Close the connection after the answer: the bytes after the request were not read."""
        self.cycle.keep_alive = False

    def _refuse(self, status: int) -> None:
        request_id = new_id("req")
        body = encode(error_body(status, CODE, REFUSALS[status], None))
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nX-Request-ID: {request_id}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
        log(logging.INFO, f"No request {status}", request_id=request_id, status=status, code=CODE)

    @property
    def _is_too_large(self) -> bool:
        is_long = max(self._header_bytes, self._overhead) > HEAD_BYTES
        return is_long or self._headers > MAX_HEADERS

    def _count(self, size: int) -> None:
        """Count a part of a head. Raises `Refused` above the limit."""
        self._header_bytes += size
        if self._is_too_large:
            raise Refused("the head is too large")

    def _expect_head(self) -> None:
        if self._hang_up is None:
            self._hang_up = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


def _announces_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
