"""A scratch repository, where versions of a template are rendered and merged out of harm's way."""

import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

ANSWERS = ".copier-answers.yml"
# `-P` keeps the project's own modules from standing in for what Copier imports.
COPIER = (sys.executable, "-P", "-m", "copier")
# All of one but its last line, which has the reason.
TRACEBACK = r"Traceback .*\n(?: .*\n)+"
# What to do about complaints of Copier's that do not say it, by some words of each.
ADVICE = {
    "Not a YAML list": "Write a list as one: --data 'providers=[one, another]'",
    "git-tracked templates": f"_src_path in {ANSWERS} has to be the template's address, such as "
    "gh:owner/name, or an absolute path to its repository.",
}

# Whatever the user's git makes of line ends: LF, in what is rendered and in what is stored.
ATTRIBUTES = "* text=auto eol=lf\n"
PLAIN = {"core.autocrlf": "false", "core.eol": "lf", "core.safecrlf": "false"}

# For each unmerged path, and each side that has it: "mode blob", as git's index knows it.
Unmerged = dict[str, dict[str, str]]


class UpdateError(Exception):
    """Why nothing was changed, and what to do about it."""


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
        title = f"Nothing was changed, as this failed: {complaint}"
        raise UpdateError("\n".join([title, *advice]))
    return done.stdout


def git(cwd: Path, *arguments: str, stdin: bytes = b"") -> str:
    """Return what git prints about the project, without the end of the line."""
    return os.fsdecode(run("git", *arguments, cwd=cwd, stdin=stdin)).rstrip("\n")


def with_settings(env: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """Return `env` with settings of git that come before those of every file."""
    new, given = dict(env), int(env.get("GIT_CONFIG_COUNT") or 0)
    for place, (key, value) in enumerate(settings.items(), given):
        new |= {f"GIT_CONFIG_KEY_{place}": key, f"GIT_CONFIG_VALUE_{place}": value}
    return {**new, "GIT_CONFIG_COUNT": str(given + len(settings))}


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
        # In the place of the user's file, after what a project's own `.gitattributes` says.
        attributes = folder / "attributes"
        attributes.write_text(ATTRIBUTES, encoding="utf-8")
        self.settings = {**PLAIN, "core.attributesFile": str(attributes)}
        self.env = with_settings(self.env, self.settings)
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
        # The user's git may have to log in to the template's host, so that its settings count.
        env = with_settings(os.environ, self.settings)
        # From the project, as a relative path to the template is relative to it.
        run(*COPIER, "recopy", *flags, *options, str(target), cwd=self.project, env=env)
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
        edit along. Up to git 2.49 the strategy `ort` follows them in spite of the option; later
        versions take `recursive` for another name of `ort`. Other ends of lines are no edit.
        """
        base = self.commit(old)
        self.git("branch", "template", self.commit(new, base))  # the name in conflict markers
        self.git("checkout", "--quiet", "--detach", "--force", self.commit(mine, base))
        how = ("--strategy=recursive", "-X", "no-renames", "-X", "renormalize")
        self.git("merge", "--quiet", "--no-commit", *how, "template", allowed=(0, 1))

    def unmerged(self) -> Unmerged:
        found: Unmerged = {}
        for line in self.git("ls-files", "--unmerged", "-z").split("\0")[:-1]:
            facts, path = line.split("\t", 1)
            mode_and_blob, side = facts.rsplit(" ", 1)
            found.setdefault(path, {})[side] = mode_and_blob
        return found

    def join(self, old: str, mine: str, new: Path) -> bytes | None:
        """Return a file with both changes to `old`, "mode blob" as `mine`; None if they clash."""
        paths = []
        for name, side in (("mine.txt", mine), ("old.txt", old)):
            path = self.folder / name
            path.write_bytes(self.raw("cat-file", "blob", side.split()[1]))
            paths.append(str(path))
        command = ("merge-file", "--stdout", "--quiet", *paths, str(new))
        clashes = (*range(1, 128), 255)
        joined = self.raw(*command, allowed=(0, *clashes))
        return None if b"<<<<<<< " in joined else joined

    def renames(self, old: str, new: str) -> dict[str, str]:
        """Return where the template's files went from one version to the other."""
        flags = ("-r", "-z", "-M", "--diff-filter=R", "--name-status")
        words = self.git("diff-tree", *flags, old, new).split("\0")[:-1]
        return dict(zip(words[1::3], words[2::3], strict=True))

    def changes(self, mine: str, result: str) -> list[str]:
        flags = ("-r", "--no-renames", "--name-status")
        return self.git("-c", "core.quotePath=no", "diff-tree", *flags, mine, result).splitlines()
