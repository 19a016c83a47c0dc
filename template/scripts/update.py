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
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

# A script that is run by its path finds its folder, and not the package that this is.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.dont_write_bytecode = True  # into a project where nothing is to change

from scripts.merge import Merge, apply, rehearse  # noqa: E402 - after what is set above
from scripts.scratch import ANSWERS, Scratch, UpdateError, git  # noqa: E402 - the same

LOCK = "uv.lock"

APPLIED = """
Done, and staged. See: git diff --staged. Keep: make test, git commit. Undo: git reset --hard."""
STOPPED = """
Nothing was changed. Do what is listed, commit and run this again; or let git hold these files as
merge conflicts, with nothing lost: {verb}"""
CONFLICTS_LEFT = """
All else is done, and staged. Settle the listed files, git add or git rm each, then git commit.
Undo all of it: git reset --hard."""
LOCKED = f"Locked again, and staged: {LOCK}."
MIGRATIONS, OWN_MIGRATIONS = "gateway/migrations/versions/", "app/migrations/versions"
NEW_MIGRATIONS = """New migrations of the template. Where one changes what yours changed,
docs/add-a-table.md says what to do:"""
EDITS = "Your edits of the engine stay (what others need is better sent to the template):"
NOT_LOCKED = f"{LOCK} is as it was. Before you commit: make setup, git add {LOCK}."

DATA = "a new answer, such as license=MIT; may be repeated"
LEAVE_CONFLICTS = "update all the same: what needs a person becomes a merge conflict"


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


def new_migrations(project: Path, changes: Collection[str]) -> list[str]:
    """The migrations that the template adds, for a project that has some of its own."""
    own = [path for path in (project / OWN_MIGRATIONS).glob("*.py") if path.name != "base.py"]
    added = [change.partition("\t")[2] for change in changes if change.startswith("A\t")]
    return [path for path in added if own and path.startswith(MIGRATIONS)]


def tell(title: str, lines: Collection[str]) -> None:
    if lines:
        print(title, *(f"  {line}" for line in lines), sep="\n")


def update(project: Path, folder: Path, options: argparse.Namespace) -> int:
    """Rehearse, then apply what may be applied; return the exit code."""
    ensure_updatable(project)
    scratch = Scratch(project, folder)
    merge = rehearse(scratch, options.to, options.data)
    if not merge.changes:
        print(f"Up to date: {merge.version}.")
        return 0
    tell(f"To {merge.version}, these change:", merge.changes)
    tell("You deleted these, so they stay away:", merge.left_out)
    tell(
        "Your edits of these moved along:", [f"{old} → {new}" for old, new in merge.carried.items()]
    )
    tell(EDITS, merge.edits)
    tell(NEW_MIGRATIONS, new_migrations(project, merge.changes))
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
