"""How long the head of a request may take, and how long it may be."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 30.0
HEAD_BYTES = 64 * 1024


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's, which would wait for a request's head for good, and keep all that comes of it."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._hang_up: asyncio.TimerHandle | None = None
        self._has_begun = False
        self._size = 0

    def connection_made(  # type: ignore[override] # as uvicorn's is
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        if getattr(self.cycle, "response_complete", True):
            self._expect_head()
        super().data_received(data)
        self._size = self._size + len(data) if self._has_begun else 0
        if self._size > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's headers are too long.")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._has_begun = True

    def on_headers_complete(self) -> None:
        self._expect_no_head()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        if self._hang_up is None:
            self._hang_up = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _expect_no_head(self) -> None:
        self._has_begun = False
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None
