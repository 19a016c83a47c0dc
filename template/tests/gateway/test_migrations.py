"""Migrations: they make the tables that the code knows, and can be undone and done again."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, insert, inspect, select
from sqlalchemy.sql.schema import SchemaConst

from app import wiring
from app.settings import Settings
from gateway.db.engine import Database
from gateway.db.migrate import upgrade
from gateway.db.revisions import applied, pending
from gateway.db.tables import accounts, attempts, metadata, predictions, users, utc_now
from gateway.errors import DatabaseUnavailable
from tests.support import ROOT

MIGRATIONS = ROOT / "migrations"
MORE = """\
import sqlalchemy as sa
from alembic import op

revision = "unknown"
down_revision = {below}
depends_on = {needed}


def upgrade() -> None:
    op.create_table("unknown", sa.Column("id", sa.Integer, primary_key=True))
"""


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


async def test_applying_them_again_changes_nothing(database: Database) -> None:
    await upgrade(database)
    await upgrade(database)
    assert not await pending(database)


async def test_what_is_missing_is_seen(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await pending(database)
    await upgrade(database)
    assert not await pending(database)
    newest = ScriptDirectory(str(MIGRATIONS)).get_heads()[-1]
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
    """While a new version rolls out, and after a rollback, the old one serves."""
    await upgrade(database)
    newer = _with_one_more(tmp_path, below=_newest_common())
    await database.transact(lambda connection: _upgrade(connection, migrations=newer))
    assert not await pending(database)
    await upgrade(database)
    assert not await pending(database)
    assert "unknown" in [row.revision for row in await database.fetch(select(applied))]


async def test_those_of_an_option_that_was_left_keep_none_back(
    database: Database, tmp_path: Path
) -> None:
    left = _with_one_more(tmp_path, needed="0001")
    await database.transact(lambda connection: _upgrade(connection, "unknown", left))
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


async def test_what_was_spent_before_there_were_budgets_counts(database: Database) -> None:
    await database.transact(lambda connection: command.upgrade(_config(connection), "0001"))
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


def _spend(connection: Connection) -> None:
    """Write what a version without budgets has left behind."""
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
    found = ScriptDirectory(str(MIGRATIONS)).get_revision("0001@head")
    assert found is not None
    return found.revision


def _with_one_more(directory: Path, below: str | None = None, needed: str | None = None) -> Path:
    """The migrations of a version that has one which this one does not know."""
    migrations = directory / "migrations"
    shutil.copytree(MIGRATIONS, migrations)
    source = MORE.format(below=repr(below), needed=repr(needed))
    (migrations / "versions/unknown.py").write_text(source, encoding="utf-8")
    return migrations


def _config(connection: Connection, migrations: Path = MIGRATIONS) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection, target: str = "heads", migrations: Path = MIGRATIONS) -> None:
    command.upgrade(_config(connection, migrations), target)


def _downgrade(connection: Connection, target: str) -> None:
    command.downgrade(_config(connection), target)
