"""The PostgreSQL for development and tests: shared data, separate databases, no trace."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import LiteralString

import psycopg
import pytest

from tests.backends import postgres
from tests.fixtures.postgres import Migrated, Prepare

START = """
import sys, time
from pathlib import Path
from tests.backends import postgres
from tests.fixtures.postgres import Migrated
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


def test_a_database_is_gone_afterwards(data: Path) -> None:
    with postgres.server(data) as server:
        with postgres.database(server) as one, postgres.database(server) as other:
            assert one != other
            with psycopg.connect(one) as connection:
                connection.execute("CREATE TABLE t (id int)")

        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(one)


def test_every_test_finds_what_the_migrations_made(postgres_server: str, prepare: Prepare) -> None:
    migrated = Migrated(postgres_server, prepare)
    first = migrated.admin_url
    with psycopg.connect(first) as left, psycopg.connect(first) as connection:
        before = connection.execute("TABLE app.policies").fetchall()
        assert before
        connection.execute("DELETE FROM app.policies")
        connection.execute("INSERT INTO app.alembic_version VALUES ('x')")
        connection.commit()
        migrated.restore()
        with pytest.raises(psycopg.OperationalError):
            left.execute("SELECT 1")
    assert migrated.admin_url == first
    with psycopg.connect(first) as connection:
        assert connection.execute("TABLE app.policies").fetchall() == before
        assert ("x",) not in connection.execute("TABLE app.alembic_version").fetchall()
    migrated.drop()


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE app.users RENAME TO others", "ALTER TABLE app.users DROP COLUMN email"],
)
def test_changed_tables_are_made_anew(
    postgres_server: str, prepare: Prepare, change: LiteralString
) -> None:
    migrated = Migrated(postgres_server, prepare)
    first = migrated.admin_url
    with psycopg.connect(first) as connection:
        connection.execute(change)
    migrated.restore()
    assert migrated.admin_url != first
    with psycopg.connect(migrated.admin_url) as connection:
        assert connection.execute("SELECT email FROM app.users").fetchall() == []
    migrated.drop()


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
