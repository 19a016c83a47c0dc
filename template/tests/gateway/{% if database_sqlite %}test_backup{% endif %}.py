"""Copies of the SQLite file."""

import json
import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from app.settings import Settings
from gateway.db import sqlite
from gateway.db.sqlite import file_of
from tests.fixtures.service import Run
from tests.support import Service, chat

COUNT = "SELECT count(*) FROM predictions"


def _count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(COUNT).fetchone()[0])


def _size(path: str) -> int:
    return os.stat(path).st_size


def _put_back(replaced: Path, path: Path) -> None:
    path.unlink(missing_ok=True)
    replaced.rename(path)


async def test_a_copy_of_a_running_service_is_whole_and_private(
    service: Service, run: Run, tmp_path: Path
) -> None:
    client = service.client(await service.create_user())
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    copy = tmp_path / "copy.db"
    result = await run("backup", str(copy), "--json")
    assert json.loads(result.stdout) == {"file": str(copy), "bytes": copy.stat().st_size}
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    assert _count(copy) == 1
    assert not copy.with_name("copy.db-wal").exists()
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200


async def test_no_file_is_overwritten(run: Run, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.write_text("mine")
    result = await run("backup", str(there))
    assert (result.exit_code, there.read_text()) == (1, "mine")
    assert "is there already" in result.stderr


async def test_restored(run: Run, database_url: str, tmp_path: Path) -> None:
    path, copy = file_of(database_url), tmp_path / "copy.db"
    assert (await run("backup", str(copy))).exit_code == 0
    created = await run("users", "create", "--email", "jane@example.com", "--plan", "many")
    assert created.exit_code == 0
    result = await run("restore", str(copy), "--json")
    assert result.exit_code == 0, result.stderr
    replaced = Path(json.loads(result.stdout)["replaced"])
    assert json.loads((await run("users", "list", "--json")).stdout) == []
    _put_back(replaced, path)
    assert len(json.loads((await run("users", "list", "--json")).stdout)) == 1


async def test_nothing_is_restored_under_a_running_service(
    service: Service, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where several processes may serve, and none holds the file's lock."""
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE_SECONDS", 0)
    copy = tmp_path / "copy.db"
    assert (await run("backup", str(copy))).exit_code == 0
    path = file_of(service.settings.database_url)
    before = sorted(path.parent.iterdir())
    result = await run("restore", str(copy))
    assert result.exit_code == 1
    assert "stop" in result.stderr
    assert set(path.parent.iterdir()) - set(before) <= {path.with_name(f"{path.name}.lock")}
    assert (await service.client().get("/readyz")).status_code == 200


async def test_a_damaged_copy_is_refused(run: Run, database_url: str, tmp_path: Path) -> None:
    path, copy = file_of(database_url), tmp_path / "copy.db"
    assert (await run("backup", str(copy))).exit_code == 0
    with copy.open("r+b") as file:
        file.truncate(copy.stat().st_size // 2)
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE t (x)")
    for wrong in (copy, foreign, tmp_path / "missing.db"):
        result = await run("restore", str(wrong))
        assert result.exit_code == 1, wrong
    assert _count(path) == 0
    assert not list(path.parent.glob(f"{path.name}.*part"))


async def test_a_damaged_database_is_replaced(run: Run, database_url: str, tmp_path: Path) -> None:
    path, copy = file_of(database_url), tmp_path / "copy.db"
    assert (await run("backup", str(copy))).exit_code == 0
    os.truncate(path, 5000)
    result = await run("restore", str(copy), "--json")
    assert result.exit_code == 0, result.stderr
    assert _size(json.loads(result.stdout)["replaced"]) == 5000
    assert _count(path) == 0


async def test_a_database_that_is_gone_is_restored(
    run: Run, settings: dict[str, object], tmp_path: Path
) -> None:
    copy, path = tmp_path / "copy.db", file_of(str(settings["database_url"]))
    assert (await run("backup", str(copy))).exit_code == 0
    _put_back(path, tmp_path / "elsewhere.db")
    result = await run("restore", str(copy), "--json")
    assert json.loads(result.stdout)["replaced"] is None
    assert _count(path) == 0
    assert Settings(_env_file=None).database_url == settings["database_url"]
