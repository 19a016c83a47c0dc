"""The two lines of migrations, read from their files, since Alembic is slow to load.

`gateway/migrations/` is the template's line, `app/migrations/` the owner's. A revision refers to
the other line only in `depends_on`, so that each line can grow on its own.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gateway.config import ROOT

PROJECT = ROOT
GATEWAY, OWN = "gateway/migrations/versions", "app/migrations/versions"
# The folder of both lines until version 0.2.
BEFORE = "migrations/versions"
# The empty revision that the owner's line starts with.
BASE = "app_0"
TEMPLATES = re.compile(r"\d{4}|[a-z_]+_\d+")
MOVE = "run: .venv/bin/python -m scripts.move_migrations"
MERGE = ".venv/bin/python -m alembic merge --message merge app@heads"


class Revision(NamedTuple):
    """A migration: its file, the revisions it follows, and those of the other line it needs."""

    path: Path
    follows: tuple[str, ...]
    needs: tuple[str, ...]

    @property
    def below(self) -> tuple[str, ...]:
        """All revisions that must be applied before this one."""
        return self.follows + self.needs


@cache
def revisions(root: Path) -> Mapping[str, Revision]:
    """The revisions of both lines, by id."""
    return read(root / GATEWAY) | read(root / OWN)


def known() -> Mapping[str, Revision]:
    """The revisions of this code, by id."""
    return revisions(PROJECT)


def read(folder: Path) -> dict[str, Revision]:
    """The revisions in a folder, by id."""
    return dict(_revision(path) for path in sorted(folder.glob("*.py")))


def faults(root: Path) -> Iterator[str]:
    """A sentence for each fault in the two lines, with what to do."""
    own = read(root / OWN)
    for name in strays(root):
        yield f"the migration {name} is not in the line of {OWN}: {MOVE}"
    newest = sorted(own.keys() - {name for each in own.values() for name in each.follows})
    if len(newest) > 1:
        yield f"{OWN} has several newest revisions, {', '.join(newest)}; join them: {MERGE}"


def strays(root: Path) -> dict[str, Revision]:
    """The owner's revisions in a wrong folder, or after a revision of the template, by id."""
    own = read(root / OWN)
    foreign = {
        name: each
        for name, each in own.items()
        if name != BASE and (not each.follows or set(each.follows) - own.keys())
    }
    elsewhere = read(root / GATEWAY)
    mixed = {name: each for name, each in elsewhere.items() if not TEMPLATES.fullmatch(name)}
    return read(root / BEFORE) | mixed | foreign


def _revision(path: Path) -> tuple[str, Revision]:
    found: dict[str, tuple[str, ...]] = {}
    for name, node in assignments(path.read_text(encoding="utf-8")):
        if name in ("revision", "down_revision", "depends_on"):
            value = ast.literal_eval(node.value) if node.value else None
            found[name] = (value,) if isinstance(value, str) else tuple(value or ())
    (name,) = found["revision"]
    return name, Revision(path, found.get("down_revision", ()), found.get("depends_on", ()))


def assignments(source: str) -> Iterator[tuple[str, ast.Assign | ast.AnnAssign]]:
    """The names that a module assigns, with their statements."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                yield target.id, node
