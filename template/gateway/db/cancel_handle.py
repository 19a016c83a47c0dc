"""Lets another thread cancel the query that a piece of work runs on a connection."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

_local = threading.local()


class CancelHandle:
    """The connection that a piece of work uses in its thread, for cancellation by another thread.

    The waiting side calls `leave` when it gives up, then `cancel_query`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Any = None
        self._is_left = False
        self._is_broken = False

    @contextmanager
    def here(self) -> Iterator[None]:
        """Run the work in this thread: connections that are opened there belong to it."""
        _local.cancel_handle = self
        try:
            yield
        finally:
            _local.cancel_handle = None
            self._release()

    @contextmanager
    def of(self, connection: Connection) -> Iterator[None]:
        """Use `connection` for the work. Raises `TimeoutError` if the result is not awaited."""
        try:
            self._take(connection.connection.driver_connection)
            yield
        finally:
            self._release()
            if self._is_broken:  # The query may have been cancelled just as it finished.
                connection.invalidate()

    @staticmethod
    def connected(driver: Any, _: Any) -> None:
        """Register a connection that was just opened in this thread, before its first query."""
        _local.cancel_handle._take(driver)

    @staticmethod
    def require_current() -> None:
        """Raise `TimeoutError` if the result of this thread's work is no longer awaited."""
        _local.cancel_handle.require_waiting()

    def _take(self, driver: Any) -> None:
        with self._lock:
            self.require_waiting()
            self._driver = driver

    def _release(self) -> None:
        with self._lock:
            self._driver = None

    def require_waiting(self) -> None:
        """Raise `TimeoutError` if the result is no longer awaited."""
        if self._is_left:
            raise TimeoutError

    def leave(self) -> None:
        """Mark the result as no longer awaited."""
        self._is_left = True

    def cancel_query(self, how: Callable[[Any], None]) -> None:
        """Call `how` with the driver's connection if the work still uses one."""
        with self._lock:
            if self._driver is not None:
                self._is_broken = True
                how(self._driver)
