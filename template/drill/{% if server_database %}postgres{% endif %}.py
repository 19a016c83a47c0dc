"""A PostgreSQL of the drill's own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg

from tests.backends import postgres

INTERVAL_SECONDS = 0.02


class PostgresServer:
    """A server that can be frozen, killed and kept from writing, with all of its processes."""

    def __init__(self, _: Path) -> None:
        # Not in the drill's own folder: started by root, the server runs as another user.
        self._folder = TemporaryDirectory(prefix="drill-postgres-")
        self._data = Path(self._folder.name)
        self._running = ExitStack()
        self._url = self._start()
        self.environment = self._addresses(self._url)

    def _addresses(self, url: str) -> Mapping[str, str]:
        """The variables that the service needs for the server at `url`."""
        return {"DATABASE_URL": url}

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process where it is."""
        pids = self._pids()
        _signal(pids, signal.SIGSTOP)
        try:
            yield
        finally:
            _signal(pids, signal.SIGCONT)

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill every process, without a chance to write anything down."""
        _signal(self._pids(), signal.SIGKILL)
        self._running.close()
        try:
            yield
        finally:
            self._start()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Take no writes, as when the disk is full: what reads goes on."""
        self._set("ALTER SYSTEM SET default_transaction_read_only = on")
        try:
            yield
        finally:
            self._set("ALTER SYSTEM RESET default_transaction_read_only")

    def _set(self, statement: str) -> None:
        """Change a setting of the server, and wait until each new transaction heeds it."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            before = connection.execute("SHOW default_transaction_read_only").fetchone()
            connection.execute(statement)
            connection.execute("SELECT pg_reload_conf()")
            while connection.execute("SHOW default_transaction_read_only").fetchone() == before:
                time.sleep(INTERVAL_SECONDS)

    def close(self) -> None:
        """End the server and remove its data."""
        self._running.close()
        self._folder.cleanup()

    def _start(self) -> str:
        return self._running.enter_context(postgres.server(self._data))

    def _pids(self) -> list[int]:
        """The server's first process, and those that it started."""
        first = int((self._data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
        table = subprocess.run(
            ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
        )
        pairs = [tuple(map(int, line.split())) for line in table.stdout.splitlines()]
        return [first, *(pid for pid, parent in pairs if parent == first)]


def _signal(pids: Sequence[int], sent: signal.Signals) -> None:
    """Send a signal to the processes that are still there: sessions end by themselves."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, sent)
