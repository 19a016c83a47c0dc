"""The use of a connection by one piece of work, which others may end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

_local = threading.local()


class CancelHandle:
    """What one work, in a thread, has of the pool; whoever waits for it may leave it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Any = None
        self._is_left = False
        self._is_broken = False

    @contextmanager
    def here(self) -> Iterator[None]:
        """Within it, the work runs in this thread: what is connected there is for it."""
        _local.cancel_handle = self
        try:
            yield
        finally:
            _local.cancel_handle = None
            self._release()

    @contextmanager
    def of(self, connection: Connection) -> Iterator[None]:
        """Within it, the work uses `connection`. Raises `TimeoutError` when nobody waits."""
        try:
            self._take(connection.connection.driver_connection)
            yield
        finally:
            self._release()
            if self._is_broken:  # It may have been broken off just as it was through.
                connection.invalidate()

    @staticmethod
    def connected(driver: Any, _: Any) -> None:
        """Take what was just connected in this thread, before anything is asked there."""
        _local.cancel_handle._take(driver)

    @staticmethod
    def require_current() -> None:
        """Raise `TimeoutError` when nobody waits any more for what this thread does."""
        _local.cancel_handle.require_waiting()

    def _take(self, driver: Any) -> None:
        with self._lock:
            self.require_waiting()
            self._driver = driver

    def _release(self) -> None:
        with self._lock:
            self._driver = None

    def require_waiting(self) -> None:
        """Raise `TimeoutError` when nobody waits any more."""
        if self._is_left:
            raise TimeoutError

    def leave(self) -> None:
        """Nobody waits any more."""
        self._is_left = True

    def cancel_query(self, how: Callable[[Any], None]) -> None:
        """Do `how` with the driver's connection, if the work still uses one."""
        with self._lock:
            if self._driver is not None:
                self._is_broken = True
                how(self._driver)
