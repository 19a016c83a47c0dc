"""SQLite: its address, its settings, and the lock of the one process that serves."""

import asyncio
import os
import resource
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, text

from app.settings import Settings
from gateway.config import ROOT
from gateway.db import sqlite
from gateway.db.engine import Database
from gateway.db.sqlite import file_of, is_ephemeral, open_database, single_instance_lock
from gateway.db.sqlite_file import SqliteFile
from gateway.doctor import NO_ANSWER
from gateway.errors import DatabaseUnavailable, StartError
from gateway.providers.base import Reply
from gateway.providers.offline import OfflineProvider
from tests.addresses import BROKEN, CANARY
from tests.fixtures.service import Run, Start
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
CHAT = "/v1/chat/completions"
# Limits that are kept in the file are looked at first.
NOT_WRITTEN = [(503, "database_unavailable", None), (503, "limiter_unavailable", None)]
# The settings with which the file belongs to one process.
PRODUCTION: dict[str, Any] = {"environment": "production", "accept_ephemeral_database": True}


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    opened = open_database(_settings(empty_database_url).gateway)
    yield opened
    await opened.close()


def _settings(url: str, **rest: Any) -> Settings:
    return Settings(_env_file=None, database_url=url, **rest)


async def test_a_commit_outlives_a_power_loss(
    database: Database, empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await database.weakness() is None
    monkeypatch.setattr(sqlite, "PRAGMAS", ("journal_mode=WAL", "synchronous=NORMAL"))
    weaker = open_database(_settings(empty_database_url).gateway)
    weakness = await weaker.weakness()
    await weaker.close()
    assert weakness is not None
    assert "local disk" in weakness


async def test_a_full_disk_is_an_error(database: Database) -> None:
    """A full disk still accepts a transaction without writes."""
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
    """The address has no options: the service sets up connections itself."""
    with pytest.raises(StartError, match="unknown option: mode, timeout;"):
        file_of("sqlite:///data/app.db?mode=ro&timeout=30")


async def test_a_missing_folder_is_made_with_the_file(tmp_path: Path) -> None:
    opened = open_database(_settings(f"sqlite:///{tmp_path}/a/b/app.db").gateway)
    await opened.create()
    await opened.check()
    await opened.close()
    assert (tmp_path / "a/b/app.db").exists()


async def test_a_missing_file_is_reported_and_not_created(tmp_path: Path) -> None:
    opened = open_database(_settings(f"sqlite:///{tmp_path}/a/app.db").gateway)
    absence = opened.absence()
    with pytest.raises(DatabaseUnavailable):
        await opened.check()
    await opened.close()
    assert absence is not None
    assert absence.startswith(f"there is no file {tmp_path}/a/app.db")
    assert not (tmp_path / "a").exists()


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


def _delete(path: Path) -> None:
    path.rename(path.with_suffix(".kept"))


def _replace(path: Path) -> None:
    shutil.copy(path.rename(path.with_suffix(".kept")), path)


def _overwrite(path: Path) -> None:
    """As `cp` does with a backup, into the same file."""
    backup = shutil.copy(path, path.with_suffix(".backup"))
    os.utime(path, ns=(0, 0))
    shutil.copyfile(backup, path)


def _put_an_empty_one_there(path: Path) -> None:
    _delete(path)
    path.touch()


def _put_back(path: Path) -> None:
    path.with_suffix(".kept").replace(path)


def _truncate(path: Path) -> None:
    os.truncate(path, 0)


def _delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def _delete_index(path: Path) -> None:
    path.with_name(f"{path.name}-shm").unlink()


@pytest.mark.parametrize(
    "change", [_delete, _replace, _overwrite, _truncate, _delete_log, _delete_index]
)
async def test_nothing_is_bought_once_the_file_is_another_one(
    service: Service,
    client: httpx2.AsyncClient,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Writes to the open file would be lost."""

    async def answer(*_: object) -> Reply:
        pytest.fail("a provider was asked")

    path = file_of(service.settings.database_url)
    assert (await client.post(CHAT, json=chat())).status_code == 200
    monkeypatch.setattr(OfflineProvider, "answer", answer)
    change(path)
    for _ in range(3):
        assert error_of(await client.post(CHAT, json=chat())) in NOT_WRITTEN
    assert not await _is_ready(service)
    assert "database_unavailable: " in service.log


async def test_a_connection_to_another_file_is_not_kept(database: Database) -> None:
    """The file is restored, and connections from meanwhile are not used."""
    await database.transact(lambda db: db.execute(text("CREATE TABLE t (x)")))
    (row,) = await database.fetch(text("PRAGMA database_list"))
    path = Path(row.file)
    _put_an_empty_one_there(path)
    count = text("SELECT count(*) FROM t")
    database._engine.dispose()  # so that the next connection is a new one
    with pytest.raises(DatabaseUnavailable):
        await database.fetch(count)
    _put_back(path)
    for _ in range(9):
        await database.transact(lambda db: db.execute(text("INSERT INTO t VALUES (1)")))
    counts = await asyncio.gather(*[database.fetch_one(count) for _ in range(9)])
    assert {row[0] for row in counts if row} == {9}


async def test_a_commit_into_a_file_that_was_just_deleted_is_no_commit(database: Database) -> None:
    await database.transact(lambda db: db.execute(text("CREATE TABLE t (x)")))
    (row,) = await database.fetch(text("PRAGMA database_list"))

    def write(connection: Connection) -> None:
        connection.execute(text("INSERT INTO t VALUES (1)"))
        _delete(Path(row.file))

    with pytest.raises(DatabaseUnavailable):
        await database.transact(write)


async def test_a_file_that_is_put_back_is_served_from_again(
    service: Service, client: httpx2.AsyncClient
) -> None:
    path = file_of(service.settings.database_url)
    assert (await client.post(CHAT, json=chat())).status_code == 200
    _delete(path)
    assert error_of(await client.post(CHAT, json=chat())) in NOT_WRITTEN
    _put_back(path)
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert await eventually(lambda: _is_ready(service))


async def test_checkpoints_are_no_change_of_the_file(database: Database) -> None:
    """Also connections of other programs, such as one that copies the log."""
    (row,) = await database.fetch(text("PRAGMA database_list"))
    await database.transact(lambda db: db.execute(text("CREATE TABLE t (x)")))
    with closing(sqlite3.connect(row.file, isolation_level=None)) as other:
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE") * 3:
            await database.transact(lambda db: db.execute(text("INSERT INTO t VALUES (1)")))
            other.execute(f"PRAGMA wal_checkpoint({mode})")
            other.execute("INSERT INTO t VALUES (2)")
            await database.check()
        other.execute("VACUUM")
    await database.check()


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
        open_database(_settings(url, **given).gateway)
    for accepted in (
        _settings(url, **given, accept_ephemeral_database=True),
        _settings(url, **given | {"environment": "test"}),
    ):
        await open_database(accepted.gateway).close()


def _link(path: Path) -> Path:
    path.with_name("link.db").symlink_to(path)
    return path.with_name("link.db")


def _hard_link(path: Path) -> Path:
    path.with_name("hard.db").hardlink_to(path)
    return path.with_name("hard.db")


def _without_lock_file(path: Path) -> Path:
    path.with_name(f"{path.name}.lock").unlink()
    return path


def _dotted(path: Path) -> Path:
    return path.parent / ".." / path.parent.name / path.name


@pytest.mark.parametrize("found", [Path, _link, _hard_link, _without_lock_file, _dotted])
async def test_a_second_process_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch, found: Callable[[Path], Path]
) -> None:
    """By any path or link to the file."""
    service = await start(**PRODUCTION)
    path = found(file_of(service.settings.database_url))
    settings = _settings(f"sqlite:///{path}")
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(sqlite, "LOCK_INTERVAL_SECONDS", 0.01)
    database = open_database(settings.gateway)
    with pytest.raises(StartError, match="Another process serves from"):
        async with single_instance_lock(settings.gateway, database):
            pytest.fail("two hold the file")
    await database.close()
    assert (await service.client().get("/readyz")).status_code == 200


async def test_a_file_that_was_replaced_while_it_was_waited_for(tmp_path: Path) -> None:
    """The lock is on the file to which the name leads."""
    path = tmp_path / "app.db"
    first, second, third = (SqliteFile(path) for _ in range(3))
    first.create()
    assert first.lock()
    assert not second.lock()
    _replace(path)
    first.close()
    assert [second.lock(), second.lock(), third.lock()] == [False, True, False]
    second.close()
    third.close()


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
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_recovers_from_a_locked_file(
    service: Service, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program, such as `sqlite3`, holds the write lock."""
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
    response = await client.post(CHAT, json=chat())
    assert error_of(response) in NOT_WRITTEN
    over.set()
    await holder
    monkeypatch.undo()
    assert (await client.post(CHAT, json=chat())).status_code == 200
    await other.close()


async def test_a_wait_for_a_locked_file_ends_with_its_time_out(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that timed out does not go on to wait for the lock."""
    monkeypatch.setattr(sqlite, "TURNS", 1_000_000)
    monkeypatch.setattr(Database, "patience_seconds", 0.2)
    database = open_database(_settings(empty_database_url).gateway)
    await database.check()
    with closing(sqlite3.connect(database.file.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailable):
            await database.check()
        await database.close()


async def test_a_file_that_others_write_to_is_waited_for(database: Database) -> None:
    """The writers take turns and commit: not an outage."""
    (row,) = await database.fetch(text("PRAGMA database_list"))
    begun, over = threading.Event(), threading.Event()

    def write() -> None:
        with closing(sqlite3.connect(row.file, isolation_level=None)) as other:
            other.execute("CREATE TABLE notes (text)")
            other.execute("BEGIN IMMEDIATE")
            begun.set()
            while not over.wait(0.05):
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


async def test_a_file_that_is_not_a_database_is_reported(start: Start, tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"no database" * 1000)
    service = await start(database_url=f"sqlite:///{broken}")
    assert (await service.client().get("/readyz")).status_code == 503
    assert (await service.client().get("/livez")).status_code == 200


@pytest.mark.parametrize(("name", "said"), [("file/app.db", "created"), ("folder", "opened")])
async def test_a_file_that_cannot_be_created_is_reported(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "file").touch()
    database = sqlite.SqliteDatabase(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(StartError, match=f"cannot be {said}"):
        await database.create()
    await database.close()


async def test_doctor_and_other_commands_make_no_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/other/app.db")
    for words in (["doctor"], ["users", "list"], ["usage"]):
        result = await run(*words)
        assert result.exit_code == 1
        assert not (tmp_path / "other").exists()
    output = (await run("doctor")).stdout
    assert f"✗ database: there is no file {tmp_path}/other/app.db" in output
    assert (await run("migrate")).exit_code == 0
    assert (await run("users", "list")).exit_code == 0


async def test_doctor_reports_a_file_that_was_moved_while_open(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new file would lose the content of its -wal file."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/moved.db")
    (tmp_path / "moved.db-wal").touch()
    output = (await run("doctor")).stdout
    assert (
        f"✗ database: {tmp_path}/moved.db was deleted, or moved away from its -wal file" in output
    )


async def test_a_file_of_another_kind_is_not_to_be_migrated(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/notes.txt")
    (tmp_path / "notes.txt").write_text("Not a database, but long enough to be read as one." * 99)
    output = (await run("doctor")).stdout
    assert "✗ migrations: not known without the database" in output
    assert "app migrate" not in output


async def test_doctor_reports_a_locked_file(run: Run, database_url: str) -> None:
    with closing(sqlite3.connect(file_of(database_url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        result = await run("doctor")
    assert result.exit_code == 1
    assert f"✗ database: {NO_ANSWER}" in result.stdout
