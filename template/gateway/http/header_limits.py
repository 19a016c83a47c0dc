"""How long the head of a request may take, how much may come of it, and what is refused before
there is a request.
"""

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
# Requests that came before the answer to an earlier one: each costs a hundred times its bytes.
MAX_QUEUED = 32
# What a client may send beside each byte of a body: a chunk of one byte has five bytes around it.
BESIDE_A_BYTE = 8
CODE = "invalid_request"
REFUSALS = {
    400: (
        "The request is not valid HTTP/1.1, or has a body and asks for another protocol; send it "
        "again as RFC 9112 says, without Upgrade."
    ),
    431: (
        f"The request's address and headers are over {HEAD_BYTES} bytes or {MAX_HEADERS} headers; "
        "send less."
    ),
}


class HeadTooLarge(Exception):
    """Ends the parser in the middle of a segment."""


class TooManyQueued(Exception):
    """Ends the parser: what follows is not read."""


class QueueingFlow(FlowControl):
    """uvicorn's, which would read on with each answer, and while a body is waited for, however
    many requests are queued.
    """

    def __init__(self, transport: asyncio.Transport, queue: Sized) -> None:
        super().__init__(transport)
        self._queue = queue

    def resume_reading(self) -> None:
        if not self._queue:  # Of a request that others follow, all has come.
            super().resume_reading()


class UpgradeWithBody(Exception):
    """Ends the parser, which would take the body for a request of its own."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, which would wait for a request's head for good, keep all that comes of it, all
    requests that are not answered yet and all that a client does not read, and answer what is no
    request in a form of its own.
    """

    _unread: UnreadTimer

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._hang_up: asyncio.TimerHandle | None = None
        # Of the request at hand: its number, whether its end is still to come, and whether its head
        # was read.
        self._number = 0
        self._has_begun = False
        self._has_head = False
        # The bytes and the number of its headers and trailers, and all bytes beside its body: the
        # parser keeps a header that is not complete.
        self._header_bytes = 0
        self._headers = 0
        self._beside_body = 0

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
        # In a segment that begins in one request and ends in another, what is of which is unknown.
        first = self._number + (not self._has_begun)
        super().data_received(data)
        if self._has_begun and self._number == first:
            self._beside_body += len(data)
            if self._beside_body > HEAD_BYTES:
                self.send_400_response(REFUSALS[431])

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._number += 1
        self._has_begun, self._has_head = True, False
        self._header_bytes = self._headers = self._beside_body = 0
        if len(self.pipeline) >= MAX_QUEUED:
            raise TooManyQueued

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        self._count(len(name) + len(value))
        if not self._has_head:  # Trailers say nothing that is read here.
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._expect_no_head()
        if self.parser.should_upgrade() and any(map(_tells_of_a_body, self.headers)):
            raise UpgradeWithBody
        super().on_headers_complete()
        self._has_head = True

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._beside_body -= BESIDE_A_BYTE * len(body)

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
        self.flow.resume_reading()  # once more, as the last request has left the queue only now
        # The connection waits, or closes, once all is read.
        self._unread.start()

    def send_400_response(self, msg: str) -> None:
        """Refuse what comes, unless an answer to what came before is under way."""
        if self.transport.is_closing():
            return
        if self._has_head and self.cycle.response_started:
            self.transport.close()
        elif not self._has_head and not getattr(self.cycle, "response_complete", True):
            self.cycle.keep_alive = False
        else:
            self._refuse(431 if self._is_too_large else 400)

    def _unsupported_upgrade_warning(self) -> None:
        """There is one protocol here. What followed the request was not read, so no more is."""
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
        is_long = max(self._header_bytes, self._beside_body) > HEAD_BYTES
        return is_long or self._headers > MAX_HEADERS

    def _count(self, size: int) -> None:
        """Count a part of a head. Ends the parser when it is too large."""
        self._header_bytes += size
        if self._is_too_large:
            raise HeadTooLarge

    def _expect_head(self) -> None:
        if self._hang_up is None:
            self._hang_up = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


def _tells_of_a_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
