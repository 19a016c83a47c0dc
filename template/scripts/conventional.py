"""Check that a commit message, or a pull request's title, is a conventional commit.

`python scripts/conventional.py FILE`, as git calls its hook; `--title FILE` for what becomes the
message of a commit on main. From these the next version and its notes are made: `feat` is a minor
version, `fix` and `perf` are patches, `!` is a major one.
"""

import re
import sys
from pathlib import Path

TYPES = "build|chore|ci|docs|feat|fix|perf|refactor|revert|style|test"
CONVENTIONAL = re.compile(rf"({TYPES})(\([\w./-]+\))?!?: \S.*")
# What git writes itself, and what it will fold into another commit: good on a branch, not on main.
BY_GIT = re.compile(r"Merge |Revert \"|(fixup|squash|amend)! ")

ADVICE = f"""
A first line is 'type: what changed' or 'type(part): what changed', with ! before the colon if
its users have to act. Types: {TYPES.replace("|", ", ")}.
For example: feat(chat): answer in the language of the question"""


def is_conventional(message: str, *, title: bool) -> bool:
    """Tell by its first line."""
    subject = message.partition("\n")[0].rstrip()
    return bool(CONVENTIONAL.fullmatch(subject) or (not title and BY_GIT.match(subject)))


def main() -> int:
    """Return 1, and say what is asked for, if the file holds no conventional message."""
    *options, path = sys.argv[1:]
    message = Path(path).read_text(encoding="utf-8")
    if is_conventional(message, title="--title" in options):
        return 0
    print(f"This is no conventional commit: {message.partition(chr(10))[0]!r}\n{ADVICE}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
