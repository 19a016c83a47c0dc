# /// script
# requires-python = ">=3.11"
# dependencies = ["copier>=9.19.1"]
# ///
"""Bring this project up to its template's newest version, or switch an option, and lose no edit.

`copier update` ends with exit code 0 even when it deleted a file that you edited, reset a binary
or left conflict markers. So this merges the template's old version, its new one and your last
commit with git, in a scratch repository, and touches the project only when nothing needs a person.

Exit codes: 0, done or up to date; 1, something needs a person, and is listed; 2, refused to start.
"""

import argparse
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

ANSWERS = ".copier-answers.yml"
LOCK = "uv.lock"
# `-P` keeps the project's own modules from standing in for what Copier imports.
COPIER = (sys.executable, "-P", "-m", "copier")
# All of one but its last line, which has the reason.
TRACEBACK = r"Traceback .*\n(?: .*\n)+"
# How git's index names the sides of a merge: the template's old version, and its new one.
OLD, NEW = "1", "3"
# What to do about complaints of Copier's that do not say it, by some words of each.
ADVICE = {
    "Not a YAML list": "Write a list as one: --data 'providers=[one, another]'",
    "git-tracked templates": f"_src_path in {ANSWERS} has to be the template's address, such as "
    "gh:owner/name, or an absolute path to its repository.",
}

APPLIED = """
Done, and staged. See: git diff --staged. Keep: make test, git commit. Undo: git reset --hard."""
STOPPED = """
Nothing was changed. Do what is listed, commit and run this again; or let git hold these files as
merge conflicts, with nothing lost: {verb}"""
CONFLICTS_LEFT = """
All else is done, and staged. Settle the listed files, git add or git rm each, then git commit.
Undo all of it: git reset --hard."""
LOCKED = f"Locked again, and staged: {LOCK}."
NOT_LOCKED = f"{LOCK} is as it was. Before you commit: make setup, git add {LOCK}."

DATA = "a new answer, such as license=MIT; may be repeated"
LEAVE_CONFLICTS = "update all the same: what needs a person becomes a merge conflict"

# For each unmerged path, and each side that has it: "mode blob", as git's index knows it.
Unmerged = dict[str, dict[str, str]]


class UpdateError(Exception):
    """Why nothing was changed, and what to do about it."""


@dataclass(frozen=True)
class Merge:
    """What the update would make of the project.

    `mine` and `result` are trees: the last commit, and that commit updated. `changes` are lines of
    a letter and a path; `conflicts` maps a path to the reason and what to do.
    """

    version: str
    mine: str
    result: str
    changes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unmerged: Unmerged = field(default_factory=dict)
    conflicts: dict[str, str] = field(default_factory=dict)


def run(
    *command: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    stdin: bytes = b"",
    allowed: Collection[int] = (0,),
) -> bytes:
    """Return what a command prints; raise UpdateError with its complaint if it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, input=stdin, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise UpdateError(f"Install {command[0]} and run this again.") from error
    if done.returncode not in allowed:
        complaint = re.sub(TRACEBACK, "", os.fsdecode(done.stderr or done.stdout)).strip()
        advice = [advice for words, advice in ADVICE.items() if words in complaint]
        told = f"Nothing was changed, as this failed: {complaint}"
        raise UpdateError("\n".join([told, *advice]))
    return done.stdout


def git(cwd: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Return what git prints about the project, without the end of the line."""
    return os.fsdecode(run("git", *arguments, cwd=cwd, stdin=stdin)).rstrip("\n")


class Scratch:
    """A repository outside the project that borrows its objects, so that no trace is left there.

    The user's git settings stay outside too: no hook, signature or filter takes part.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self.project = project
        self.folder = folder
        self.worktree = folder / "merge"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        self.env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        for role in ("AUTHOR", "COMMITTER"):
            self.env |= {f"GIT_{role}_NAME": "update", f"GIT_{role}_EMAIL": "update@localhost"}
        run("git", "init", "--quiet", str(self.worktree), cwd=folder, env=self.env)
        objects = project / git(project, "rev-parse", "--git-path", "objects")
        alternates = self.worktree / ".git/objects/info/alternates"
        alternates.write_text(f"{objects}\n", encoding="utf-8")

    def raw(self, *arguments: str, allowed: Collection[int] = (0,)) -> bytes:
        """Return what git prints here, byte for byte: patches and blobs have no encoding."""
        return run("git", *arguments, cwd=self.worktree, env=self.env, allowed=allowed)

    def git(self, *arguments: str, allowed: Collection[int] = (0,)) -> str:
        return os.fsdecode(self.raw(*arguments, allowed=allowed)).rstrip("\n")

    def render(self, name: str, *options: str) -> Path:
        """Render the template with the project's answers into a folder that no one has edited."""
        target = self.folder / name
        target.mkdir()
        (target / ANSWERS).write_bytes((self.project / ANSWERS).read_bytes())
        flags = ("--defaults", "--overwrite", "--quiet")
        # From the project, as a relative path to the template is relative to it.
        run(*COPIER, "recopy", *flags, *options, str(target), cwd=self.project)
        return target

    def store(self, rendered: Path) -> str:
        """Return the tree of a rendered folder: all of it, whatever its `.gitignore` says."""
        self.git("read-tree", "--empty")
        self.git(f"--work-tree={rendered}", "add", "--all", "--force", str(rendered))
        return self.git("write-tree")

    def commit(self, tree: str, *parent: str) -> str:
        return self.git("commit-tree", tree, "-m", "update", *(f"-p{commit}" for commit in parent))

    def merge(self, old: str, mine: str, new: str) -> None:
        """Merge three trees into the work tree and the index, conflicts included.

        Renames are not followed: git would take one option's file for the other's, and move an
        edit along. Its `ort` strategy followed them, told not to, up to git 2.49; later ones take
        `recursive` for another name of `ort`.
        """
        base = self.commit(old)
        self.git("branch", "template", self.commit(new, base))  # the name in conflict markers
        self.git("checkout", "--quiet", "--detach", "--force", self.commit(mine, base))
        flags = ("--quiet", "--no-commit", "--strategy=recursive", "--strategy-option=no-renames")
        self.git("merge", *flags, "template", allowed=(0, 1))

    def unmerged(self) -> Unmerged:
        found: Unmerged = {}
        for line in self.git("ls-files", "--unmerged", "-z").split("\0")[:-1]:
            facts, path = line.split("\t", 1)
            mode_and_blob, side = facts.rsplit(" ", 1)
            found.setdefault(path, {})[side] = mode_and_blob
        return found

    def renames(self, old: str, new: str) -> dict[str, str]:
        """Return where the template's files went from one version to the other."""
        flags = ("-r", "-z", "-M", "--diff-filter=R", "--name-status")
        words = self.git("diff-tree", *flags, old, new).split("\0")[:-1]
        return dict(zip(words[1::3], words[2::3], strict=True))

    def changes(self, mine: str, result: str) -> list[str]:
        flags = ("-r", "--no-renames", "--name-status")
        return self.git("-c", "core.quotePath=no", "diff-tree", *flags, mine, result).splitlines()


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; exit with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="update.py", description="Update from the template.")
    option = parser.add_argument
    option("--check", action="store_true", help="say what would change, and change nothing")
    option("--to", metavar="VERSION", help="a tag, branch or commit instead of the newest release")
    option("--data", metavar="KEY=VALUE", action="append", default=[], type=an_answer, help=DATA)
    option("--leave-conflicts", action="store_true", help=LEAVE_CONFLICTS)
    return parser.parse_args(arguments)


def verb(options: argparse.Namespace, *more: str) -> str:
    """Return the command that does what was asked for, as a person types it."""
    version = [f"--to={options.to}"] if options.to else []
    words = shlex.join([*version, *(f"--data={answer}" for answer in options.data), *more])
    # Both make and the shell read what is between the double quotes.
    quoted = re.sub(r'(["`$\\])', r"\\\1", words.replace("$", "$$"))
    return f'make update ARGS="{quoted}"' if words else "make update"


def an_answer(text: str) -> str:
    if not re.match(r"[A-Za-z]\w*=", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE, such as license=MIT")
    return text


def ensure_updatable(project: Path) -> None:
    """Raise UpdateError unless the template is known and all of the project is committed."""
    if importlib.util.find_spec("copier") is None:
        raise UpdateError("This Python has no Copier: run `make update`.")
    if not (project / ANSWERS).is_file():
        raise UpdateError(f"Restore {ANSWERS} from git: it names the template and its version.")
    try:
        changed = git(project, "status", "--porcelain", "--", ".")
    except UpdateError as error:
        raise UpdateError("This is no git repository: `git init`, commit all, retry.") from error
    if changed:
        raise UpdateError(f"Commit or stash these, to tell the update from them:\n{changed}")


def has_newer(project: Path) -> bool:
    """Tell whether the template has a later release than the project's version."""
    answer = json.loads(run(*COPIER, "check-update", "--output-format=json", cwd=project))
    return bool(answer["update_available"])


def answer_in(folder: Path, key: str) -> str | None:
    """Return the first line of an answer as Copier recorded it."""
    recorded = (folder / ANSWERS).read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(key)}:(.*)$", recorded, re.MULTILINE)
    return found and found[1].strip().strip("'\"")


def render_new(scratch: Scratch, options: argparse.Namespace) -> Path:
    """Render the version asked for; raise UpdateError for an answer to no question of it.

    Without a newer release it is the project's own: it may be later than the last release.
    """
    version = options.to or (None if has_newer(scratch.project) else ":current:")
    reference = [f"--vcs-ref={version}"] if version else []
    new = scratch.render("new", *reference, *(f"--data={answer}" for answer in options.data))
    for key in (answer.partition("=")[0] for answer in options.data):
        if answer_in(new, key) is None:
            raise UpdateError(f"There is no question {key!r}: {ANSWERS} has their names.")
    return new


def rehearse(scratch: Scratch, options: argparse.Namespace) -> Merge:
    """Merge the old version, the new one and the last commit, away from the project."""
    rendered = render_new(scratch, options)
    version = answer_in(rendered, "_commit") or "the new version"
    mine = git(scratch.project, "rev-parse", "HEAD:./")
    old, new = scratch.store(scratch.render("old", "--vcs-ref=:current:")), scratch.store(rendered)
    if old == new:
        return Merge(version, mine, result=mine)
    scratch.merge(old, mine, new)
    scratch.git("checkout", new, "--", ANSWERS)
    left_out = leave_out_deleted(scratch)
    unmerged = scratch.unmerged()
    conflicts = explain(scratch, unmerged, scratch.renames(old, new), version)
    scratch.git("add", "--update")
    result = scratch.git("write-tree")
    changes = scratch.changes(mine, result)
    return Merge(version, mine, result, changes, left_out, unmerged, conflicts)


def leave_out_deleted(scratch: Scratch) -> list[str]:
    """Return the files that the user deleted and the new version changed: they stay deleted."""
    paths = [path for path, sides in scratch.unmerged().items() if sides.keys() == {OLD, NEW}]
    if paths:
        scratch.git("rm", "--quiet", "--force", "--", *paths)
    return paths


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
    if merge.unmerged:
        mark_unmerged(scratch, merge.unmerged, top, prefix)


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


def must_lock(project: Path, changes: Collection[str]) -> bool:
    """Tell whether the project keeps a lock file that no longer fits what it asks for."""
    asks_for_other = any(change.endswith("\tpyproject.toml") for change in changes)
    return asks_for_other and git(project, "ls-files", LOCK) != ""


def lock(project: Path) -> bool:
    """Lock again, with the uv that runs this; if that fails, uv itself says why."""
    command = (os.environ.get("UV", "uv"), "lock", "--quiet", "--python", sys.executable)
    try:
        subprocess.run(command, cwd=project, check=True)
    except (OSError, subprocess.CalledProcessError):
        return False
    git(project, "add", LOCK)
    return True


def tell(title: str, lines: Collection[str]) -> None:
    if lines:
        print(title, *(f"  {line}" for line in lines), sep="\n")


def update(project: Path, folder: Path, options: argparse.Namespace) -> int:
    """Rehearse, then apply what may be applied; return the exit code."""
    ensure_updatable(project)
    scratch = Scratch(project, folder)
    merge = rehearse(scratch, options)
    if not merge.changes:
        print(f"Up to date: {merge.version}.")
        return 0
    tell(f"To {merge.version}, these change:", merge.changes)
    tell("You deleted these, so they stay away:", merge.left_out)
    tell("These need you:", [f"{path}: {why}" for path, why in merge.conflicts.items()])
    return finish(scratch, merge, options)


def finish(scratch: Scratch, merge: Merge, options: argparse.Namespace) -> int:
    if merge.conflicts and (options.check or not options.leave_conflicts):
        print(STOPPED.format(verb=verb(options, "--leave-conflicts")))
        return 1
    if options.check:
        print(f"\nNothing was changed. Do it: {verb(options)}")
        return 0
    apply(scratch, merge)
    locked = True
    if must_lock(scratch.project, merge.changes):
        locked = "pyproject.toml" not in merge.conflicts and lock(scratch.project)
        print("", LOCKED if locked else NOT_LOCKED, sep="\n")
    print(CONFLICTS_LEFT if merge.conflicts else APPLIED)
    return 1 if merge.conflicts or not locked else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Update the project that this script is part of; return the exit code."""
    options = parse(arguments)
    try:
        with TemporaryDirectory(prefix="update-") as folder:
            return update(Path(__file__).resolve().parents[1], Path(folder), options)
    except UpdateError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
