"""The PostgreSQL for development and tests: shared data, separate databases, no trace."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest

from tests.backends import postgres

START = """
import sys, time
from pathlib import Path
from tests.backends import postgres
with postgres.server(Path(sys.argv[1])) as url:
    print(url, flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    with TemporaryDirectory(prefix="postgres-") as directory:
        yield Path(directory)


def test_data_outlives_the_server(data: Path) -> None:
    with postgres.server(data) as url, psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
    with postgres.server(data) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('kept')").fetchone() != (None,)


def test_who_finds_a_running_server_shares_it_and_leaves_it_running(data: Path) -> None:
    with postgres.server(data) as url:
        with postgres.server(data) as same_url:
            assert same_url == url

        psycopg.connect(url).close()


def test_each_database_is_a_clone_of_its_own(data: Path) -> None:
    with postgres.server(data) as server, postgres.database(server) as template:
        with psycopg.connect(template) as connection:
            connection.execute("CREATE TABLE migrated (id int)")
        with (
            postgres.database(server, template) as one,
            postgres.database(server, template) as other,
        ):
            with psycopg.connect(one) as connection:
                connection.execute("INSERT INTO migrated VALUES (1)")
            with psycopg.connect(other) as connection:
                assert connection.execute("SELECT count(*) FROM migrated").fetchone() == (0,)

        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(one)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_its_process(data: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", START, str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        psycopg.connect(url).close()

        process.send_signal(number)

    assert _stops(data)


def _stops(data: Path) -> bool:
    deadline = time.monotonic() + 5
    while (data / "postmaster.pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not (data / "postmaster.pid").exists()
