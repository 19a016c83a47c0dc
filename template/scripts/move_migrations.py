"""Move your own migrations into `app/migrations/`, the owner's line (docs/add-a-table.md).

Until version 0.2 they followed the template's migrations in `migrations/`. A moved migration keeps
its revision id, so a database that has it does not apply it again. What it followed of yours stays
in `down_revision`; what it followed of the template goes to `depends_on`.

Exit codes: 0, all are in the line; 1, one needs a person.
"""

import sys
from collections.abc import Collection
from pathlib import Path

from gateway.config import ROOT
from gateway.db.lines import BASE, GATEWAY, OWN, Revision, assignments, faults, read, strays
from scripts.workflow import error


def move(root: Path) -> bool:
    """Move and rewrite the strays; return whether each line is one now."""
    template = read(root / GATEWAY)
    found = strays(root)
    edited = {name for name in found if name in template and found[name] != template[name]}
    mine = {name: found[name] for name in found.keys() - edited}
    names = mine.keys() | read(root / OWN).keys()
    for each in mine.values():
        source = rewritten(each, names)
        each.path.unlink()
        path = root / OWN / each.path.name
        path.write_text(source, encoding="utf-8")
        print(f"{each.path.relative_to(root)} → {path.relative_to(root)}")
    for name in sorted(edited):
        where, place = found[name].path.relative_to(root), template[name].path.relative_to(root)
        error(f"{where} is the template's: take your edit over to {place}, and delete it.")
    return not edited and not _told(root)


def rewritten(revision: Revision, own: Collection[str]) -> str:
    """The migration as one of the owner's line, whose ids are `own`."""
    source = revision.path.read_text(encoding="utf-8")
    foreign = [name for name in revision.follows if name not in own]
    below = {
        "down_revision": [name for name in revision.follows if name in own] or [BASE],
        "depends_on": list(dict.fromkeys([*revision.needs, *foreign])),
    }
    lines = source.splitlines()
    placed = {name: node for name, node in assignments(source) if name in below}
    for name, node in reversed(placed.items()):
        end = node.end_lineno or node.lineno
        lines[node.lineno - 1 : end] = [f"{name} = {_literal(below.pop(name))}"]
    after = placed["down_revision"].lineno if "down_revision" in placed else 0
    for name, names in below.items():
        lines.insert(after, f"{name} = {_literal(names)}")
    return "\n".join([*lines, ""])


def _literal(names: list[str]) -> str:
    quoted = [f'"{name}"' for name in names]
    return f"({', '.join(quoted)})" if len(quoted) > 1 else next(iter(quoted), "None")


def _told(root: Path) -> list[str]:
    found = list(faults(root))
    for fault in found:
        error(fault)
    return found


if __name__ == "__main__":
    sys.exit(not move(ROOT))
