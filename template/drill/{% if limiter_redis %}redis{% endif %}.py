"""A Redis of the drill's own."""

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from redis import Redis

from tests.backends import redis


class RedisServer:
    """A server that can be frozen and killed; it comes back empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "redis"
        self._directory.mkdir()
        self._running = ExitStack()
        self.environment = {"REDIS_URL": self._start()}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop its process where it is."""
        pid = self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill its process."""
        os.kill(self._pid(), signal.SIGKILL)
        self._running.close()
        try:
            yield
        finally:
            self._start()

    def close(self) -> None:
        """End the server."""
        self._running.close()

    def _start(self) -> str:
        return self._running.enter_context(redis.server_in(self._directory))

    def _pid(self) -> int:
        with Redis.from_url(self.environment["REDIS_URL"]) as client:
            pid: int = client.info("server")["process_id"]
            return pid
