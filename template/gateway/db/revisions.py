"""The applied migrations, and the missing ones.

Alembic's own table holds only the newest ones. A newer version of the code replaces them there, and
the migration of an option stays there when the option is removed: this code knows neither. So a
table of its own records every applied migration, and Alembic's table gets the known ones.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, inspect, select

from gateway.db.engine import Database
from gateway.db.lines import BASE, known
from gateway.db.tables import metadata

applied = Table("applied_migrations", metadata, Column("revision", String(32), primary_key=True))
# Alembic's own table, in the schema of the others.
versions = Table("alembic_version", MetaData(), Column("version_num", String(32)))


async def pending(database: Database) -> bool:
    """Whether a migration is missing. Raises `DatabaseUnavailable`, also when all are."""
    rows = await database.fetch(select(applied.c.revision))
    return not known().keys() <= {row.revision for row in rows}


def adopt(connection: Connection, schema: str | None) -> None:
    """Make Alembic's table name the newest applied revisions among those that this code knows."""
    found = _applied(connection, schema)
    here = {name: each for name, each in known().items() if name in found}
    below = {name for each in here.values() for name in each.below}
    if BASE in below - found:
        # Projects of version 0.2 applied their first migration before it had this empty base.
        connection.execute(insert(applied), [{"revision": BASE}])
    last = here.keys() - below
    if found:
        connection.execute(delete(versions))
        connection.execute(insert(versions), [{"version_num": name} for name in sorted(last)])


def note(ctx: Any, step: Any, *_: Any, **__: Any) -> None:
    """Record what Alembic has just applied or undone (see its `on_version_apply`).

    Also adds the names of applied revisions to `applied` in the attributes of Alembic's config.
    """
    revisions = [{"revision": name} for name in step.up_revision_ids]
    if step.is_upgrade:
        ctx.config.attributes.setdefault("applied", []).extend(step.up_revision_ids)
        ctx.connection.execute(insert(applied), revisions)
    else:
        undone = applied.c.revision.in_(step.up_revision_ids)
        ctx.connection.execute(delete(applied).where(undone))


def _applied(connection: Connection, schema: str | None) -> set[str]:
    """All applied revisions. Earlier versions did not record them: then Alembic's table counts."""
    tables = set(inspect(connection).get_table_names(schema))
    if applied.name not in tables:
        applied.create(connection)
        if versions.name in tables:
            rows = connection.execute(select(versions.c.version_num)).scalars().all()
            revisions = [{"revision": name} for name in sorted(set(_implied(rows)))]
            connection.execute(insert(applied), revisions)
    return set(connection.execute(select(applied.c.revision)).scalars())


def _implied(names: Iterable[str]) -> Iterator[str]:
    """The revisions and all revisions below them."""
    for name in names:
        yield name
        if name in known():
            yield from _implied(known()[name].below)
