"""Closes the connection of a client that does not read its answer."""

import asyncio

UNREAD_SECONDS = 30.0
# The least that a client must read in that time: about a kilobyte a second.
LEAST_BYTES = 32 * 1024


class UnreadTimer:
    """Aborts a connection whose client reads too slowly."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def start(self) -> None:
        """Start the timer if there are unread bytes."""
        self.stop()
        self._unread = self._transport.get_write_buffer_size()
        if self._unread:
            self._timer = self._loop.call_later(UNREAD_SECONDS, self._check)

    def stop(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self) -> None:
        taken = self._unread - self._transport.get_write_buffer_size()
        if taken < min(LEAST_BYTES, self._unread):
            self._transport.abort()
        else:
            self.start()
