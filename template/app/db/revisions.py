"""Whether the database has every migration. Their files are read, as Alembic takes long to load."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache

from sqlalchemy import Column, MetaData, String, Table, select

from app.db.engine import Database
from app.settings import ROOT

# Alembic's own table, in the schema of the others.
versions = Table("alembic_version", MetaData(), Column("version_num", String(32)))
BELOW = ("down_revision", "depends_on")


async def pending(database: Database) -> bool:
    """Whether a migration is missing. Raises `DatabaseUnavailable`, also when all are."""
    rows = await database.fetch(select(versions.c.version_num))
    applied = [row.version_num for row in rows]
    return not are_newer(applied) and not _revisions().keys() <= set(_implied(applied))


def are_newer(applied: Iterable[str]) -> bool:
    """Whether a newer version has migrated. It applied all that this one knows, but what it built
    on that took its place in Alembic's table.
    """
    return not set(applied) <= _revisions().keys()


def _implied(applied: Iterable[str]) -> Iterator[str]:
    """The applied revisions and all that they build on."""
    for name in applied:
        yield name
        yield from _implied(_revisions()[name])


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
