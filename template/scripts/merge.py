"""Merge the template's old version, its new one and the project's last commit; bring that home."""

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scripts.scratch import ANSWERS, COPIER, Scratch, Unmerged, UpdateError, git, run

# How git's index names the sides of a merge: the template's old version, yours, and its new one.
OLD, MINE, NEW = "1", "2", "3"
# Where the template's files went, an old and a new path a line. Its new version says so, as git
# would take one option's file for that of another.
MOVED = "scripts/moved.txt"
# The template's engine: a project may edit it, and is reminded of that.
ENGINE = ("gateway/", "tests/gateway/")


@dataclass(frozen=True)
class Merge:
    """What the update would make of the project.

    `mine` and `result` are trees: the last commit, and that commit updated. `changes` are lines of
    a letter and a path; `carried` maps a path to where your edit of it went; `edits` are the paths
    of the engine where the result differs from the template; `conflicts` maps a path to the reason
    and what to do.
    """

    version: str
    mine: str
    result: str
    changes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    carried: dict[str, str] = field(default_factory=dict)
    edits: list[str] = field(default_factory=list)
    unmerged: Unmerged = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)


def rehearse(scratch: Scratch, wanted: str | None, answers: Collection[str]) -> Merge:
    """Merge the old version, the new one and the last commit, away from the project."""
    rendered = render_new(scratch, wanted, answers)
    version = answer_in(rendered, "_commit") or "the new version"
    mine = git(scratch.project, "rev-parse", "HEAD:./")
    old, new = scratch.store(scratch.render("old", "--vcs-ref=:current:")), scratch.store(rendered)
    if old == new:
        return Merge(version, mine, result=mine)
    scratch.merge(old, mine, new)
    scratch.git("checkout", new, "--", ANSWERS)
    left_out = leave_out_deleted(scratch)
    moved = moves(rendered)
    carried = carry(scratch, moved, rendered)
    unmerged = scratch.unmerged()
    conflicts = explain(scratch, unmerged, scratch.renames(old, new) | moved, version)
    scratch.git("add", "--update")
    result = scratch.git("write-tree")
    changes = scratch.changes(mine, result)
    edits = edits_of_the_engine(scratch, new, result)
    return Merge(version, mine, result, changes, left_out, carried, edits, unmerged, conflicts)


def edits_of_the_engine(scratch: Scratch, new: str, result: str) -> list[str]:
    """Return the paths of the engine's files that the template has and the project changed."""
    lines = (line.partition("\t") for line in scratch.changes(new, result))
    return [path for kind, _, path in lines if kind == "M" and path.startswith(ENGINE)]


def render_new(scratch: Scratch, wanted: str | None, answers: Collection[str]) -> Path:
    """Render the version asked for; raise UpdateError for an answer to no question of it.

    Without a newer release it is the project's own: it may be later than the last release.
    """
    version = wanted or (None if has_newer(scratch.project) else ":current:")
    reference = [f"--vcs-ref={version}"] if version else []
    new = scratch.render("new", *reference, *(f"--data={answer}" for answer in answers))
    for key in (answer.partition("=")[0] for answer in answers):
        if answer_in(new, key) is None:
            raise UpdateError(f"There is no question {key!r}: {ANSWERS} has their names.")
    return new


def has_newer(project: Path) -> bool:
    """Tell whether the template has a later release than the project's version."""
    answer = json.loads(run(*COPIER, "check-update", "--output-format=json", cwd=project))
    return bool(answer["update_available"])


def answer_in(folder: Path, key: str) -> str | None:
    """Return the first line of an answer as Copier recorded it."""
    recorded = (folder / ANSWERS).read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(key)}:(.*)$", recorded, re.MULTILINE)
    return found and found[1].strip().strip("'\"")


def leave_out_deleted(scratch: Scratch) -> list[str]:
    """Return the files that the user deleted and the new version changed: they stay deleted."""
    paths = [path for path, sides in scratch.unmerged().items() if sides.keys() == {OLD, NEW}]
    if paths:
        scratch.git("rm", "--quiet", "--force", "--", *paths)
    return paths


def moves(rendered: Path) -> dict[str, str]:
    """Return where files of this project's options went, by their old paths."""
    listed = rendered / MOVED
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    pairs = dict(line.split() for line in lines)
    return {old: new for old, new in pairs.items() if (rendered / new).is_file()}


def carry(scratch: Scratch, moved: Mapping[str, str], rendered: Path) -> dict[str, str]:
    """Take edits along to where their files went, where they fit; return old and new paths."""
    carried = {}
    for path, sides in scratch.unmerged().items():
        new = moved.get(path)
        if new is None or sides.keys() != {OLD, MINE}:
            continue
        there = scratch.worktree / new
        if there.read_bytes() != (rendered / new).read_bytes():  # edited there, too
            continue
        joined = scratch.join(sides[OLD], sides[MINE], there)
        if joined is not None:
            there.write_bytes(joined)
            scratch.git("add", "--", new)
            scratch.git("rm", "--quiet", "--force", "--", path)
            carried[path] = new
    return carried


def explain(
    scratch: Scratch, unmerged: Unmerged, renames: dict[str, str], version: str
) -> dict[str, str]:
    return {
        path: reason(scratch.worktree / path, sides, renames.get(path), version)
        for path, sides in unmerged.items()
    }


def reason(file: Path, sides: Collection[str], renamed: str | None, version: str) -> str:
    """Say what both sides did to a file, and what to do about it."""
    if NEW not in sides and renamed:
        return f"you edited it, {version} has {renamed} instead: move your edit there."
    if NEW not in sides:
        return f"you edited it, {version} deletes it: move what you need to a file of your own."
    if file.is_file() and b"\0" in file.read_bytes():
        return f"you and {version} changed this binary: choose one of the two."
    if OLD not in sides:
        return f"you and {version} both added it: rename yours, or make it the same."
    return f"you and {version} changed the same lines: join the two."


def apply(scratch: Scratch, merge: Merge) -> None:
    """Bring the rehearsed result into the project, staged: git does all of it or nothing."""
    top = Path(git(scratch.project, "rev-parse", "--show-toplevel"))
    prefix = git(scratch.project, "rev-parse", "--show-prefix")
    exact = ("-r", "--patch", "--binary", "--full-index", "--no-renames")
    patch = scratch.raw("diff-tree", *exact, merge.mine, merge.result)
    where = f"--directory={prefix}"
    run("git", "apply", "--index", "--whitespace=nowarn", where, cwd=top, stdin=patch)
    end_lines_as_told(top, prefix)
    if merge.unmerged:
        mark_unmerged(scratch, merge.unmerged, top, prefix)


def end_lines_as_told(top: Path, prefix: str) -> None:
    """Write files again whose lines end in CRLF, where `.gitattributes` now tells LF."""
    paths = []
    for line in git(top, "ls-files", "--eol", "-z", "--", prefix or ".").split("\0")[:-1]:
        facts, path = line.split("\t", 1)
        stored, here, attributes = facts.split(maxsplit=2)
        if (stored, here) == ("i/lf", "w/crlf") and "eol=lf" in attributes:
            paths.append(path)
            (top / path).unlink()
    if paths:
        git(top, "checkout-index", "-z", "--stdin", stdin=os.fsencode("\0".join([*paths, ""])))
        git(top, "update-index", "-q", "--refresh")


def mark_unmerged(scratch: Scratch, unmerged: Unmerged, top: Path, prefix: str) -> None:
    """Make git hold files as merge conflicts: it refuses to commit until they are settled."""
    lines = []
    for path, sides in unmerged.items():
        lines.append(f"0 {'0' * 40}\t{prefix}{path}")
        for side, mode_and_blob in sides.items():
            lines.append(f"{mode_and_blob} {side}\t{prefix}{path}")
            content = scratch.raw("cat-file", "blob", mode_and_blob.split()[1])
            git(top, "hash-object", "-w", "--stdin", stdin=content)
    git(top, "update-index", "-z", "--index-info", stdin=os.fsencode("\0".join([*lines, ""])))
