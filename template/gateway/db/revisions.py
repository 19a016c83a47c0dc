"""Which migrations were applied, and which are missing.

Alembic's own table has only the last ones. What a newer version built on them takes their place in
it, and what an option brought stays there when the option is left: this code knows neither. So each
is noted in a table of its own, and Alembic is told of those that are known here.

The files are read, as Alembic takes long to load.
"""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, MetaData, String, Table, delete, insert, inspect, select

from gateway.config import ROOT
from gateway.db.engine import Database
from gateway.db.tables import metadata

applied = Table("applied_migrations", metadata, Column("revision", String(32), primary_key=True))
# Alembic's own table, in the schema of the others.
versions = Table("alembic_version", MetaData(), Column("version_num", String(32)))
BELOW = ("down_revision", "depends_on")


async def pending(database: Database) -> bool:
    """Whether a migration is missing. Raises `DatabaseUnavailable`, also when all are."""
    rows = await database.fetch(select(applied.c.revision))
    return not _revisions().keys() <= {row.revision for row in rows}


def adopt(connection: Connection, schema: str | None) -> None:
    """Make Alembic's table say what it would if there were no revisions but those known here."""
    found = _applied(connection, schema)
    known = found & _revisions().keys()
    last = known - {below for name in known for below in _revisions()[name]}
    if found:
        connection.execute(delete(versions))
        connection.execute(insert(versions), [{"version_num": name} for name in sorted(last)])


def note(ctx: Any, step: Any, *_: Any, **__: Any) -> None:
    """Keep what Alembic has just applied, or undone (see its `on_version_apply`).

    The names of those applied are added to `applied` among the attributes of Alembic's config.
    """
    revisions = [{"revision": name} for name in step.up_revision_ids]
    if step.is_upgrade:
        ctx.config.attributes.setdefault("applied", []).extend(step.up_revision_ids)
        ctx.connection.execute(insert(applied), revisions)
    else:
        undone = applied.c.revision.in_(step.up_revision_ids)
        ctx.connection.execute(delete(applied).where(undone))


def _applied(connection: Connection, schema: str | None) -> set[str]:
    """All that was applied, which a version without this table did not note."""
    tables = set(inspect(connection).get_table_names(schema))
    if applied.name not in tables:
        applied.create(connection)
        if versions.name in tables:
            rows = connection.execute(select(versions.c.version_num)).scalars().all()
            revisions = [{"revision": name} for name in sorted(set(_implied(rows)))]
            connection.execute(insert(applied), revisions)
    return set(connection.execute(select(applied.c.revision)).scalars())


def _implied(names: Iterable[str]) -> Iterator[str]:
    """The revisions and all that they build on."""
    for name in names:
        yield name
        yield from _implied(_revisions().get(name, ()))


@cache
def _revisions() -> dict[str, tuple[str, ...]]:
    """Each revision, and those that it builds on."""
    paths = (ROOT / "migrations/versions").glob("*.py")
    named = [_names(path.read_text(encoding="utf-8")) for path in paths]
    return {names["revision"][0]: names["down_revision"] + names["depends_on"] for names in named}


def _names(source: str) -> dict[str, tuple[str, ...]]:
    """What a migration says of itself, each as a tuple of names."""
    found: dict[str, tuple[str, ...]] = dict.fromkeys(("revision", *BELOW), ())
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id in found and node.value:
                value = ast.literal_eval(node.value)
                found[target.id] = (value,) if isinstance(value, str) else tuple(value or ())
    return found
