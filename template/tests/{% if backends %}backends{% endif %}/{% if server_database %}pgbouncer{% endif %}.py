"""A PgBouncer in transaction mode, as hosts put it before PostgreSQL."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg

from tests.backends import ending_with_us
from tests.ports import kept_port

START_SECONDS = 10
# Debian installs it where only root looks for programs.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"
# Fewer connections of the server than a service opens: each transaction may get another one.
CONFIGURATION = """
[databases]
* = host={host}

[pgbouncer]
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
auth_type = trust
auth_file = {folder}/users.txt
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
logfile = {folder}/log
"""


def executable() -> str | None:
    """The program; None if it is not installed."""
    return shutil.which("pgbouncer", path=PATH)


@contextmanager
def pooler(url: str) -> Iterator[str]:
    """Yield an address of the same database, through a pooler."""
    parts = urlsplit(url)
    with TemporaryDirectory(prefix="pgbouncer-") as directory, kept_port() as port:
        folder = Path(directory)
        folder.chmod(0o777)
        host = unquote(parse_qs(parts.query)["host"][0])
        file = folder / "pgbouncer.ini"
        file.write_text(CONFIGURATION.format(host=host, folder=folder, port=port))
        (folder / "users.txt").write_text(f'"{parts.username}" ""\n')
        # It does not run as root, and only the server's own user may open the server's socket.
        user = ["-u", Path(host).owner()] if os.getuid() == 0 else []
        place = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"
        with (
            subprocess.Popen(
                [str(executable()), *user, str(file)], stderr=subprocess.DEVNULL
            ) as process,
            ending_with_us(process.pid, "KILL"),
        ):
            pooled = parts._replace(netloc=place, query="").geturl()
            _wait_until_ready(process, pooled, folder / "log")
            yield pooled


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            psycopg.connect(url, connect_timeout=2).close()
        except psycopg.OperationalError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text() if log.exists() else ""
                raise RuntimeError(f"PgBouncer did not start: {said}") from error
            time.sleep(0.01)
        else:
            return
