"""Migrations: two lines that create the tables of the code, and can be undone and repeated."""

import re
import shutil
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from textwrap import dedent, indent

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select, update
from sqlalchemy.sql.schema import SchemaConst

from app import wiring
from app.settings import Settings
from app.tables import metadata
from gateway.db import lines
from gateway.db.engine import Database
from gateway.db.migrate import upgrade
from gateway.db.revisions import applied, pending
from gateway.db.tables import accounts, attempts, predictions, users, utc_now
from gateway.errors import DatabaseUnavailable, StartError
from scripts.move_migrations import move
from tests.support import ROOT

MORE = """\
import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = {below}
depends_on = {needed}


def upgrade() -> None:
    op.create_table("{name}", sa.Column("user_id", sa.String(40), sa.ForeignKey("users.id")))


def downgrade() -> None:
    op.drop_table("{name}")
"""


PAGE = (ROOT / "docs/add-a-table.md").read_text(encoding="utf-8")
MERGE = """\
revision = "merge"
down_revision: tuple[str, ...] = (
    "notes",
    "0004",
)
"""
NOTES = Table("notes", MetaData(), Column("user_id", String(40)))


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    """A database without a table."""
    settings = Settings(_env_file=None, database_url=empty_database_url)
    opened = wiring.database.open_database(settings.gateway)
    yield opened
    await opened.close()


async def test_they_make_the_tables_that_the_code_knows(database: Database) -> None:
    await upgrade(database)
    assert await database.transact(_differences) == []


async def test_they_can_be_undone_and_done_again(database: Database) -> None:
    for _ in range(2):
        await upgrade(database)
        assert set(metadata.tables) <= set(await database.transact(_tables))
        await database.transact(lambda connection: _downgrade(connection, "base"))
        assert await database.transact(_tables) == ["alembic_version", "applied_migrations"]


async def test_earlier_feedback_can_be_searched(database: Database) -> None:
    await upgrade(database)
    await database.transact(lambda connection: _downgrade(connection, "0009"))
    await database.transact(_spend)
    for number, rating in ((1, "up"), (2, "down")):
        rated = update(predictions).where(predictions.c.id == f"pred_{number}")
        change = rated.values(feedback={"rating": rating, "comment": "Fine"})
        await database.transact(partial(Connection.execute, statement=change))
    await upgrade(database)
    query = select(predictions.c.rating).order_by(predictions.c.id)
    assert [row.rating for row in await database.fetch(query)] == ["up", "down"]


async def test_applying_them_again_changes_nothing(database: Database) -> None:
    await upgrade(database)
    await upgrade(database)
    assert not await pending(database)


async def test_missing_migrations_are_pending(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await pending(database)
    await upgrade(database)
    assert not await pending(database)
    newest = ScriptDirectory.from_config(_config(ROOT)).get_heads()[-1]
    await database.transact(lambda connection: _downgrade(connection, f"{newest}@-1"))
    assert await pending(database)


async def test_one_that_fails_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection) -> None:
        _upgrade(connection)
        raise ConnectionError("gone in the middle")

    monkeypatch.setattr("gateway.db.migrate._upgrade", fail)
    with pytest.raises(DatabaseUnavailable):
        await upgrade(database)
    assert await database.transact(_tables) == []


async def test_a_newer_versions_migrations_are_no_reason_to_refuse(
    database: Database, tmp_path: Path
) -> None:
    """The old version works during a rollout and after a rollback."""
    await upgrade(database)
    _add(_copy(tmp_path), "unknown", below=_newest_common())
    await database.transact(lambda connection: _upgrade(connection, root=tmp_path))
    assert not await pending(database)
    await upgrade(database)
    assert not await pending(database)
    assert "unknown" in [row.revision for row in await database.fetch(select(applied))]


async def test_those_of_an_option_that_was_left_keep_none_back(
    database: Database, tmp_path: Path
) -> None:
    _add(_copy(tmp_path), "unknown", needed="0001")
    await database.transact(lambda connection: _upgrade(connection, "unknown", tmp_path))
    assert await pending(database)
    await upgrade(database)
    assert not await pending(database)
    assert {"unknown", *metadata.tables} <= set(await database.transact(_tables))


async def test_a_database_of_a_version_that_noted_nothing(database: Database) -> None:
    await upgrade(database)
    await database.transact(applied.drop)
    with pytest.raises(DatabaseUnavailable):
        await pending(database)
    await upgrade(database)
    assert not await pending(database)


async def test_amounts_from_before_budgets_count(database: Database) -> None:
    await database.transact(lambda connection: _upgrade(connection, "0001"))
    await database.transact(_spend)
    await upgrade(database)
    rows = await database.fetch(select(accounts).order_by(accounts.c.name, accounts.c.period))
    assert [tuple(row) for row in rows] == [
        ("service", "2026-10", 3, 0),
        ("service", "2026-10-30", 1, 0),
        ("service", "2026-10-31", 2, 0),
        ("user:usr_1", "2026-10", 3, 0),
        ("user:usr_1", "2026-10-30", 1, 0),
        ("user:usr_1", "2026-10-31", 2, 0),
    ]


def test_each_line_is_one() -> None:
    assert list(lines.faults(ROOT)) == []


@pytest.mark.parametrize(
    ("line", "below", "message"),
    [
        (lines.OWN, "0001", "the migration one is not in the line of app/migrations/versions"),
        (lines.OWN, None, "the migration one is not in the line of app/migrations/versions"),
        (lines.GATEWAY, "0001", "the migration one is not in the line of app/migrations/versions"),
        (lines.BEFORE, "0001", "the migration one is not in the line of app/migrations/versions"),
        (lines.OWN, lines.BASE, "several newest revisions, one, two; join them"),
    ],
)
async def test_faults_in_the_two_lines_are_reported(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    below: str | None,
    message: str,
) -> None:
    monkeypatch.setattr(lines, "PROJECT", _without_yours(tmp_path))
    _add(tmp_path, "two", lines.OWN, lines.BASE)
    _add(tmp_path, "one", line, below)
    with pytest.raises(StartError, match=message):
        await upgrade(database)
    assert await database.transact(_tables) == []


async def test_each_line_grows_without_the_other(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner's migration depends on the template's newest; then the template adds one."""
    monkeypatch.setattr(lines, "PROJECT", _without_yours(tmp_path))
    _add(tmp_path, "notes", lines.OWN, lines.BASE, _newest_common())
    await _migrate(database)
    _add(tmp_path, "next_1", below=_newest_common())
    lines.revisions.cache_clear()
    assert await pending(database)
    assert await _migrate(database) == ["next_1"]
    _add(tmp_path, "more", lines.OWN, "notes", "next_1")
    assert await _migrate(database) == ["more"]
    assert {"notes", "next_1", "more"} <= set(await database.transact(_tables))
    await database.transact(lambda connection: _downgrade(connection, "base", tmp_path))
    assert await database.transact(_tables) == ["alembic_version", "applied_migrations"]


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "of-a-version-that-noted-nothing"])
async def test_one_that_was_applied_before_there_were_two_lines_is_not_applied_again(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: bool
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.rmtree((_copy(before) / lines.OWN).parent)
    newest = _newest_common()
    _add(before, "notes", below=newest)
    _add(before, "more", below="notes")
    await database.transact(lambda connection: _upgrade(connection, root=before))
    await database.transact(_write_note)
    if not noted:
        await database.transact(applied.drop)

    after.mkdir()
    monkeypatch.setattr(lines, "PROJECT", _without_yours(after))
    moved = [_add(after, "notes", lines.BEFORE, newest), _add(after, "more", lines.BEFORE, "notes")]
    assert move(after)
    assert not any(path.exists() for path in moved)
    _add(after, "next_1", below=newest)
    assert await _migrate(database) == ["next_1"]
    assert await database.transact(_notes) == ["usr_1"]
    _add(after, "last", lines.OWN, "more")
    assert await _migrate(database) == ["last"]


@pytest.mark.parametrize("applied_before", [True, False])
async def test_a_column_that_both_lines_add(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, applied_before: bool
) -> None:
    """As in docs/add-a-table.md: drop the owner's, and add the template's where it is missing."""
    monkeypatch.setattr(lines, "PROJECT", _without_yours(tmp_path))
    own = _add(tmp_path, "mine", lines.OWN, lines.BASE, _newest_common())
    if applied_before:
        _upgrade_by(own, 'op.add_column("users", sa.Column("nickname", sa.String(100)))')
        await _migrate(database)
    _upgrade_by(own, "pass")
    shown = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (guarded,) = (indent(dedent(text), "    ") for text in shown if "get_columns" in text)
    _upgrade_by(_add(tmp_path, "next_1", below=_newest_common()), guarded.strip())
    await _migrate(database)
    assert "nickname" in await database.transact(_columns_of_users)


def _upgrade_by(path: Path, body: str) -> None:
    head, upgrade, _ = path.read_text(encoding="utf-8").partition("def upgrade() -> None:\n")
    path.write_text(f"{head}{upgrade}    {body}\n", encoding="utf-8")


def test_a_merge_with_the_template_is_moved_to_where_it_depends_on_it(tmp_path: Path) -> None:
    _add(_without_yours(tmp_path), "notes", lines.BEFORE, "0002", "0001")
    (tmp_path / lines.BEFORE / "merge.py").write_text(MERGE, encoding="utf-8")
    assert move(tmp_path)
    own = lines.read(tmp_path / lines.OWN)
    assert own["notes"][1:] == ((lines.BASE,), ("0001", "0002"))
    assert own["merge"][1:] == (("notes",), ("0004",))


def test_an_edited_one_of_the_template_is_left_to_its_owner(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = _add(_without_yours(tmp_path), "0002", lines.BEFORE, "0001")
    assert not move(tmp_path)
    assert edited.exists()
    assert "take your edit over to gateway/migrations/versions/0002" in "".join(capsys.readouterr())


async def _migrate(database: Database) -> list[str]:
    """Apply what was added; return the names."""
    lines.revisions.cache_clear()
    names = await upgrade(database)
    assert not await pending(database)
    return names


def _columns_of_users(connection: Connection) -> set[str]:
    columns = inspect(connection).get_columns("users", _schema(connection))
    return {column["name"] for column in columns}


def _write_note(connection: Connection) -> None:
    _spend(connection)
    connection.execute(insert(NOTES).values(user_id="usr_1"))


def _notes(connection: Connection) -> list[str]:
    return list(connection.execute(select(NOTES.c.user_id)).scalars())


def _spend(connection: Connection) -> None:
    """Write the rows of a version without budgets."""
    now = utc_now()
    user = {"id": "usr_1", "email": "a@b.c", "role": "user", "plan": "free", "created_at": now}
    connection.execute(insert(users).values(user))
    for number, day in enumerate(("2026-10-30", "2026-10-31"), start=1):
        own = {"id": f"pred_{number}", "user_id": "usr_1", "day": day}
        asked = {"request_id": "r", "kind": "chat", "model": "m", "status": "succeeded"}
        connection.execute(insert(predictions).values(**own, **asked, created_at=now))
        paid = {"number": 1, "provider": "p", "model": "m", "state": "settled", "price": {}}
        own |= {"id": f"att_{number}", "prediction_id": f"pred_{number}"}
        times = {"opened_at": now, "lease_until": now}
        money = {"bound_nano_usd": 9, "cost_nano_usd": number}
        connection.execute(insert(attempts).values(**own, **paid, **times, **money))


def _schema(connection: Connection) -> str | None:
    schemas = connection.get_execution_options().get("schema_translate_map") or {}
    name: str | None = schemas.get(None)
    return name


def _tables(connection: Connection) -> list[str]:
    return sorted(inspect(connection).get_table_names(_schema(connection)))


def _differences(connection: Connection) -> list[object]:
    schema = _schema(connection)
    expected = MetaData(naming_convention=metadata.naming_convention)
    for table in metadata.tables.values():
        table.to_metadata(expected, schema=schema or SchemaConst.RETAIN_SCHEMA)
    options = {
        "compare_type": True,
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name == schema,
        "version_table_schema": schema,
    }
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), expected))


def _newest_common() -> str:
    found = ScriptDirectory.from_config(_config(ROOT)).get_revision("gateway@head")
    assert found is not None
    return found.revision


def _copy(root: Path) -> Path:
    """Both lines of migrations, for a version of its own."""
    shutil.copy(ROOT / "pyproject.toml", root)
    for line in (lines.GATEWAY, lines.OWN):
        shutil.copytree((ROOT / line).parent, (root / line).parent)
    return root


def _without_yours(root: Path) -> Path:
    """The template's line, and the start of yours."""
    for path in (_copy(root) / lines.OWN).glob("*.py"):
        if path.name != "base.py":
            path.unlink()
    return root


def _add(
    root: Path,
    name: str,
    line: str = lines.GATEWAY,
    below: str | None = None,
    needed: str | None = None,
) -> Path:
    """Add a migration that makes a table of its name."""
    source = MORE.format(name=name, below=repr(below), needed=repr(needed))
    path = root / line / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")
    return path


def _config(root: Path) -> Config:
    return Config(toml_file=root / "pyproject.toml")


def _on(connection: Connection, root: Path) -> Config:
    config = _config(root)
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, target: str = "heads", root: Path = ROOT) -> None:
    command.upgrade(_on(connection, root), target)


def _downgrade(connection: Connection, target: str, root: Path = ROOT) -> None:
    command.downgrade(_on(connection, root), target)
