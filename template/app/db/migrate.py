"""Bring the tables up to date with `migrations/`, and tell whether they are."""

from collections.abc import Iterable, Iterator
from functools import cache

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import to_tuple
from sqlalchemy import Column, Connection, MetaData, String, Table, select

from app.db.engine import Database
from app.settings import ROOT

# Alembic's own table, in the schema of the others.
versions = Table("alembic_version", MetaData(), Column("version_num", String(32)))
LONGEST_SECONDS = 600.0


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing, in one transaction."""
    await database.transact(_upgrade, LONGEST_SECONDS)


async def pending(database: Database) -> bool:
    """Whether a migration is missing. Raises `DatabaseUnavailable`, also when all are."""
    rows = await database.fetch(select(versions.c.version_num))
    return not _all_revisions() <= set(_implied(row.version_num for row in rows))


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")


@cache
def _all_revisions() -> frozenset[str]:
    return frozenset(revision.revision for revision in _scripts().walk_revisions())


def _implied(applied: Iterable[str]) -> Iterator[str]:
    """The applied revisions and all that they build on; unknown ones are a newer version's."""
    for name in applied:
        yield name
        revision = _scripts().get_revision(name) if name in _all_revisions() else None
        if revision is not None:
            below = (*to_tuple(revision.down_revision, ()), *to_tuple(revision.dependencies, ()))
            yield from _implied(below)


@cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    return config
