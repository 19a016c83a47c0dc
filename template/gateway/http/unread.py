"""How long an answer waits for a client that does not read it."""

import asyncio

UNREAD_SECONDS = 30.0
# What a client must take in that time at least: about a kilobyte a second.
LEAST_BYTES = 32 * 1024


class UnreadTimer:
    """Cuts a connection whose client reads too little of what was written to it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None
        self._unread = 0

    def start(self) -> None:
        """From now on the client must read, if there is something that it has not read."""
        self.stop()
        self._unread = self._transport.get_write_buffer_size()
        if self._unread:
            self._timer = self._loop.call_later(UNREAD_SECONDS, self._look)

    def stop(self) -> None:
        """Do not look any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        taken = self._unread - self._transport.get_write_buffer_size()
        if taken < min(LEAST_BYTES, self._unread):
            self._transport.abort()
        else:
            self.start()
