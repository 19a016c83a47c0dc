"""The use of a connection by one piece of work, which others may end."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection


class Use:
    """What one work, in a thread, has of the pool; whoever waits for it may leave it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._driver: Any = None
        self._is_left = False

    @contextmanager
    def of(self, connection: Connection) -> Iterator[None]:
        """Within it, the work uses `connection`. Raises `TimeoutError` when nobody waits."""
        with self._lock:
            self.require_waiting()
            self._driver = connection.connection.driver_connection
        try:
            yield
        finally:
            with self._lock:
                self._driver = None

    def require_waiting(self) -> None:
        """Raise `TimeoutError` when nobody waits any more."""
        if self._is_left:
            raise TimeoutError

    def leave(self) -> None:
        """Nobody waits any more."""
        self._is_left = True

    def break_off(self, how: Callable[[Any], None]) -> None:
        """Do `how` with the driver's connection, if the work still uses one."""
        with self._lock:
            if self._driver is not None:
                how(self._driver)
