"""SQLite: its address, its settings, and that the file belongs to one process."""

import asyncio
import resource
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.db import sqlite
from app.db.engine import Database
from app.db.sqlite import alone, file_of, is_ephemeral, open_database
from app.errors import DatabaseUnavailable, StartError
from app.settings import ROOT, Settings
from tests.addresses import BROKEN, CANARY
from tests.fixtures.service import Start
from tests.support import (
    PATIENCE_SECONDS,
    SECRET_KEY,
    Service,
    chat,
    error_of,
    eventually,
    outlasting,
)

MOUNTS = """\
overlay / overlay rw 0 0
proc /proc proc rw 0 0
/dev/sda1 /data ext4 rw 0 0
tmpfs /data/cache tmpfs rw 0 0
"""
# Where the file belongs to one process, whatever was chosen beside it.
PRODUCTION: dict[str, Any] = {"environment": "production", "accept_ephemeral_database": True}


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    opened = open_database(_settings(empty_database_url))
    yield opened
    await opened.close()


def _settings(url: str, **rest: Any) -> Settings:
    return Settings(_env_file=None, database_url=url, **rest)


async def test_a_commit_outlives_a_power_loss(
    database: Database, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await database.weakness() is None
    monkeypatch.setattr(sqlite, "PRAGMAS", ("journal_mode=WAL", "synchronous=NORMAL"))
    weaker = open_database(_settings(empty_database_url))
    weakness = await weaker.weakness()
    await weaker.close()
    assert weakness is not None
    assert "local disk" in weakness


async def test_a_full_disk_is_told(database: Database) -> None:
    """It takes a transaction that writes nothing."""
    await database.check()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(DatabaseUnavailable):
            await database.check()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await database.check()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///data/app.db", ROOT / "data/app.db"),
        ("sqlite:////var/lib/app.db", Path("/var/lib/app.db")),
        ("sqlite+aiosqlite:////app.db", Path("/app.db")),
        ("sqlite:////var/a%20b@c#d.db", Path("/var/a b@c#d.db")),
    ],
)
def test_the_file_of_an_address(url: str, path: Path) -> None:
    assert file_of(url) == path


@pytest.mark.parametrize(
    "url",
    [
        *("app.db", "", "sqlite://", "sqlite:///:memory:", "mysql://host/x", "//", "x://["),
        *("sqlite://data/app.db", "sqlite:///tests", f"sqlite:///{'a' * 300}"),
        f"sqlite+pysqlcipher://:{CANARY}@/app.db",
        *(text.replace("scheme", "sqlite") for text in BROKEN),
    ],
)
def test_an_address_that_names_no_file(url: str) -> None:
    with pytest.raises(
        StartError, match=r"^DATABASE_URL: .*; use sqlite:///data/app\.db$"
    ) as error:
        file_of(url)
    assert CANARY not in str(error.value)


def test_options_of_an_address_are_named() -> None:
    """None is known: what a connection needs is set here."""
    with pytest.raises(StartError, match="unknown option: mode, timeout;"):
        file_of("sqlite:///data/app.db?mode=ro&timeout=30")


async def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    opened = open_database(_settings(f"sqlite:///{tmp_path}/a/b/app.db"))
    await opened.check()
    await opened.close()
    assert (tmp_path / "a/b/app.db").exists()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 4000)],
)
async def test_its_settings_hold_on_every_connection(
    database: Database, pragma: str, value: object
) -> None:
    query = text(f"PRAGMA {pragma}")
    reads = await asyncio.gather(*[database.fetch_one(query) for _ in range(5)])
    write = await database.transact(lambda connection: connection.execute(query).one())
    assert {row[0] for row in reads if row} | {write[0]} == {value}


async def test_readers_do_not_wait_for_a_writer(database: Database) -> None:
    await database.transact(lambda connection: connection.execute(text("CREATE TABLE t (x)")))
    loop = asyncio.get_running_loop()

    def write_and_read(connection: Any) -> int:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        reading = database.fetch(text("SELECT * FROM t"))
        return len(asyncio.run_coroutine_threadsafe(reading, loop).result(2))

    assert await database.transact(write_and_read) == 0
    assert len(await database.fetch(text("SELECT * FROM t"))) == 1


async def test_a_locked_file_is_not_ready_and_is_again_when_it_is_free(service: Service) -> None:
    locking = sqlite3.connect(file_of(service.settings.database_url), isolation_level=None)
    with closing(locking):
        locking.execute("BEGIN IMMEDIATE")
        assert (await service.client().get("/readyz")).status_code == 503
    assert await eventually(lambda: _is_ready(service))


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_is_deleted_while_it_is_open_is_not_ready(
    service: Service, replaced: bool
) -> None:
    path = file_of(service.settings.database_url)
    assert await _is_ready(service)
    kept = path.rename(path.with_suffix(".kept"))
    if replaced:
        shutil.copy(kept, path)
    assert not await _is_ready(service)


async def _is_ready(service: Service) -> bool:
    return bool((await service.client().get("/readyz")).status_code == 200)


async def test_writers_lose_no_update(database: Database) -> None:
    def add(connection: Any) -> None:
        count = connection.execute(text("SELECT x FROM t")).scalar_one()
        connection.execute(text("UPDATE t SET x = :x"), {"x": count + 1})

    await database.transact(lambda connection: connection.execute(text("CREATE TABLE t (x)")))
    await database.transact(lambda connection: connection.execute(text("INSERT INTO t VALUES (0)")))
    await asyncio.gather(*[database.transact(add) for _ in range(30)])
    assert (await database.fetch(text("SELECT x FROM t")))[0].x == 30


@pytest.mark.parametrize(
    ("path", "lost"),
    [
        ("/app/data/app.db", True),
        ("/data/app.db", False),
        ("/data/cache/app.db", True),
        ("/database/app.db", True),
    ],
)
def test_a_file_that_goes_with_the_container_is_seen(tmp_path: Path, path: str, lost: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS, encoding="utf-8")
    assert is_ephemeral(Path(path), str(mounts)) is lost


def test_without_a_list_of_mounts_nothing_is_lost(tmp_path: Path) -> None:
    assert not is_ephemeral(tmp_path / "app.db", str(tmp_path / "none"))


async def test_production_refuses_such_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "is_ephemeral", lambda _: True)
    given = {"environment": "production", "secret_key": SECRET_KEY}
    url = f"sqlite:///{tmp_path}/app.db"
    with pytest.raises(StartError, match="ACCEPT_EPHEMERAL_DATABASE=true"):
        open_database(_settings(url, **given))
    for accepted in (
        _settings(url, **given, accept_ephemeral_database=True),
        _settings(url, **given | {"environment": "test"}),
    ):
        await open_database(accepted).close()


async def test_a_second_process_is_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    service = await start(**PRODUCTION)
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(sqlite, "LOCK_INTERVAL_SECONDS", 0.01)
    with pytest.raises(StartError, match="Another process serves from"):
        async with alone(service.settings, service.database):
            pytest.fail("two hold the file")
    assert (await service.client().get("/readyz")).status_code == 200


async def test_a_successor_waits_for_its_predecessor_to_stop(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "LOCK_INTERVAL_SECONDS", 0.01)
    first = await start(**PRODUCTION)
    successor = asyncio.create_task(start(**PRODUCTION))
    await asyncio.sleep(0.05)
    assert not successor.done()
    await first.stop()
    second = await successor
    client = second.client(await second.create_user())
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_a_locked_file_is_told_and_comes_back(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds the write lock, with the `sqlite3` program say."""
    other = sqlite.SqliteDatabase(file_of(service.settings.database_url))
    loop = asyncio.get_running_loop()
    held, over = asyncio.Event(), asyncio.Event()

    def hold(connection: Any) -> None:
        connection.execute(text("SELECT 1"))
        loop.call_soon_threadsafe(held.set)
        asyncio.run_coroutine_threadsafe(over.wait(), loop).result(10)

    holder = asyncio.create_task(other.transact(hold, 10))
    await held.wait()
    monkeypatch.setattr(Database, "patience_seconds", 0.2)
    response = await client.post("/v1/chat/completions", json=chat())
    # Limits that are kept in the file are looked at first.
    assert error_of(response) in [
        (503, "database_unavailable", None),
        (503, "limiter_unavailable", None),
    ]
    over.set()
    await holder
    monkeypatch.undo()
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    await other.close()


async def test_a_file_that_others_write_to_is_waited_for(database: Database) -> None:
    """They leave the lock to each other, and commit: that is no outage."""
    (row,) = await database.fetch(text("PRAGMA database_list"))
    begun, over = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(row.file, isolation_level=None)) as other:
            other.execute("CREATE TABLE notes (text)")
            other.execute("BEGIN IMMEDIATE")
            begun.set()
            while not over.wait(0.02):
                other.execute("INSERT INTO notes VALUES ('')")
                other.execute("COMMIT")
                other.execute("BEGIN IMMEDIATE")

    others = asyncio.create_task(asyncio.to_thread(write))
    try:
        await asyncio.to_thread(begun.wait, PATIENCE_SECONDS)
        with outlasting(over.set):
            await database.check()
        assert over.is_set()
    finally:
        over.set()
        await others


async def test_a_file_that_is_no_database_is_told(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    service = await start(database_url=f"sqlite:///{broken}")
    assert (await service.client().get("/readyz")).status_code == 503
    assert (await service.client().get("/livez")).status_code == 200


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = Settings(_env_file=None, database_url=f"sqlite:///{tmp_path}/file/app.db")
    with pytest.raises(StartError, match="cannot be made"):
        sqlite.open_database(settings)
