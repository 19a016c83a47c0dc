"""Migrations: they make the tables that the code knows, and can be undone and done again."""

from collections.abc import AsyncIterator

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, inspect
from sqlalchemy.sql.schema import SchemaConst

from app import wiring
from app.db.engine import Database
from app.db.migrate import upgrade
from app.db.revisions import pending
from app.db.tables import metadata
from app.errors import DatabaseUnavailable
from app.settings import Settings
from tests.support import ROOT


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    """A database without a table."""
    settings = Settings(_env_file=None, database_url=empty_database_url)
    opened = wiring.database.open_database(settings)
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
        assert await database.transact(_tables) == ["alembic_version"]


async def test_applying_them_again_changes_nothing(database: Database) -> None:
    await upgrade(database)
    await upgrade(database)
    assert not await pending(database)


async def test_what_is_missing_is_seen(database: Database) -> None:
    with pytest.raises(DatabaseUnavailable):
        await pending(database)
    await upgrade(database)
    assert not await pending(database)
    newest = ScriptDirectory(str(ROOT / "migrations")).get_heads()[-1]
    await database.transact(lambda connection: _downgrade(connection, f"{newest}@-1"))
    assert await pending(database)


async def test_one_that_fails_leaves_nothing_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(connection: Connection) -> None:
        _upgrade(connection)
        raise ConnectionError("gone in the middle")

    monkeypatch.setattr("app.db.migrate._upgrade", fail)
    with pytest.raises(DatabaseUnavailable):
        await upgrade(database)
    assert await database.transact(_tables) == []


async def test_a_newer_versions_migrations_are_no_reason_to_refuse(database: Database) -> None:
    """While a new version rolls out, the old one goes on serving."""
    await upgrade(database)
    await database.transact(lambda connection: _stamp(connection, "newer"))
    assert not await pending(database)


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


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = connection
    return config


def _upgrade(connection: Connection) -> None:
    command.upgrade(_config(connection), "heads")


def _downgrade(connection: Connection, target: str) -> None:
    command.downgrade(_config(connection), target)


def _stamp(connection: Connection, name: str) -> None:
    """Note a revision that this version does not know."""
    table = f"{schema}.alembic_version" if (schema := _schema(connection)) else "alembic_version"
    connection.exec_driver_sql(f"INSERT INTO {table} VALUES ('{name}')")  # noqa: S608
