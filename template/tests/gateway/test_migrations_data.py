"""Migrations of tables that have rows, and by several processes at once."""

import asyncio
import datetime as dt
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    Table,
    func,
    insert,
    select,
)

from app import wiring
from app.settings import Settings
from app.tables import metadata
from gateway.db.engine import Database
from gateway.db.migrate import upgrade
from gateway.db.revisions import applied
from gateway.db.tables import Json, UtcDateTime, attempts, predictions, users
from tests.support import ROOT, environment

# The tables of the first migration.
FIRST = (users, predictions, attempts)


@pytest.fixture
async def database(empty_database_url: str) -> AsyncIterator[Database]:
    """A migrated database with a row in every table."""
    settings = Settings(_env_file=None, database_url=empty_database_url)
    opened = wiring.database.open_database(settings.gateway)
    await upgrade(opened)
    await opened.transact(_fill)
    yield opened
    await opened.close()


async def test_rows_outlive_the_way_back_and_forward(database: Database) -> None:
    await database.transact(lambda connection: _downgrade(connection, "0001"))
    assert await database.transact(_counts) == [1] * len(FIRST)
    await upgrade(database)
    assert await database.transact(_counts) == [1] * len(FIRST)
    await database.transact(lambda connection: connection.execute(select(predictions)).one())
    await database.transact(lambda connection: _downgrade(connection, "base"))
    await upgrade(database)
    assert await database.transact(_counts) == [0] * len(FIRST)


async def test_of_two_replicas_that_start_at_once_one_migrates(
    settings: dict[str, Any], empty_database_url: str
) -> None:
    chosen = environment(settings | {"database_url": empty_database_url})
    replicas = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app", "migrate", "--json"),
            cwd=ROOT,
            env=chosen,
            stdout=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [output for output, _ in await asyncio.gather(*(one.communicate() for one in replicas))]
    assert [one.returncode for one in replicas] == [0, 0]
    first, second = sorted(map(json.loads, said), key=len)
    assert (first, "0001" in second) == ([], True)


def _fill(connection: Connection) -> None:
    """Write a row into every table that has none. Those that a migration fills have one."""
    for table in metadata.sorted_tables:
        if table is not applied and not connection.execute(_count(table)).scalar():
            row = {column.name: _value(column) for column in table.c}
            connection.execute(insert(table).values(row))


def _value(column: Column[Any]) -> Any:
    """A value that the column takes; the same for a column and for those that refer to it."""
    values: list[tuple[type[Any], Any]] = [
        (UtcDateTime, dt.datetime(2026, 11, 1, tzinfo=dt.UTC)),
        (Boolean, True),
        (Integer, 1),
        (LargeBinary, b"1"),
        (Json, {}),
    ]
    return next((value for kind, value in values if isinstance(column.type, kind)), "2026-11-01")


def _count(table: Table) -> Any:
    return select(func.count()).select_from(table)


def _counts(connection: Connection) -> list[int]:
    return [connection.execute(_count(table)).scalar_one() for table in FIRST]


def _downgrade(connection: Connection, target: str) -> None:
    config = Config(toml_file=ROOT / "pyproject.toml")
    config.attributes["connection"] = connection
    command.downgrade(config, target)
