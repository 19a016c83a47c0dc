"""Release this template: `scripts/release.py plan`, or `publish v1.2.3`, as release.yml runs them.

Version and notes come from the commits since the last release, by the rules and the script that
every project gets. They count from the last release, so those of tests/releases.toml have to be
tagged; and the changelog must speak of the version, for people, before it is published.
"""

import argparse
import re
import sys
import tomllib
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In the place of this folder, which is no package: the projects' scripts are one.
sys.path[0] = str(ROOT / "template")
release, workflow = import_module("scripts.release"), import_module("scripts.workflow")

SECTION = re.compile(r"^## \[(.+?)\].*\n((?:(?!## ).*\n?)*)", re.MULTILINE)
UNWRITTEN = """\
CHANGELOG.md: move all that is Unreleased to {number}, which comes first then, and merge that."""
UNTAGGED = """\
{number} is released, but has no tag: git tag v{number} {commit} && git push origin v{number}"""
MOVED = "The tag v{number} is not on the commit that tests/releases.toml has for it: {commit}"


def plan() -> None:
    """Say version and notes, and what is still to do for them."""
    planned = release.plan()
    check_tags()
    release.tell(planned)
    if planned and not is_written_about(planned.version):
        workflow.notice(UNWRITTEN.format(number=planned.version[1:]))


def publish(version: str) -> None:
    """Tag the commit and make the release, if it is the one that was planned, and written about."""
    planned = release.plan()
    check_tags()
    if planned is None or planned.version != version:
        raise release.ReleaseError(f"{version} is not what would be released now: start again.")
    if not is_written_about(version):
        raise release.ReleaseError(UNWRITTEN.format(number=version[1:]))
    commit = release.run("git", "rev-parse", "HEAD")
    options = ("--target", commit, "--title", version, "--notes-file", "-")
    release.run("gh", "release", "create", version, *options, stdin=planned.notes)
    workflow.summary(f"## Released {version}")


def check_tags() -> None:
    """Raise ReleaseError where a tag is missing or has moved: the next version would be wrong."""
    text = (ROOT / "tests/releases.toml").read_text(encoding="utf-8")
    for number, commit in tomllib.loads(text)["releases"].items():
        if not release.run("git", "tag", "--list", f"v{number}"):
            raise release.ReleaseError(UNTAGGED.format(number=number, commit=commit))
        if release.run("git", "rev-parse", f"v{number}^{{commit}}") != commit:
            raise release.ReleaseError(MOVED.format(number=number, commit=commit))


def is_written_about(version: str) -> bool:
    """Tell whether the changelog's newest section is about it, and nothing is Unreleased."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = {name: text.strip() for name, text in SECTION.findall(changelog)}
    unreleased = sections.pop("Unreleased", "")
    newest, text = next(iter(sections.items()), ("", ""))
    return newest == version[1:] and bool(text) and not unreleased


def main() -> int:
    """Return the exit code: 0, done or nothing to release; 1, refused or failed."""
    parser = argparse.ArgumentParser(prog="scripts/release.py", description="Release main.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan", help="say version and notes, and change nothing")
    publishing = commands.add_parser("publish", help="tag it, and make the release on GitHub")
    publishing.add_argument("version", help="the planned version, such as v1.2.3")
    given = parser.parse_args()
    try:
        if given.command == "plan":
            plan()
        else:
            publish(given.version)
    except release.ReleaseError as error:
        workflow.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
