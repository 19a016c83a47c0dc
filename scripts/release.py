"""Release this template: `scripts/release.py plan`, or `publish v1.2.3`, as release.yml runs them.

Version and notes come from the commits since the last release, by the rules and the script that
every project gets. The changelog must speak of the version, for people, before it is published.
"""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# In the place of this folder, which is no package: the projects' scripts are one.
sys.path[0] = str(ROOT / "template")
release, workflow = import_module("scripts.release"), import_module("scripts.workflow")


def main(arguments: list[str]) -> int:
    """Return the exit code: 0, done or nothing to release; 1, refused or failed."""
    try:
        if arguments[:1] != ["publish"]:
            return int(release.main(arguments))
        publish(arguments[1])
    except release.ReleaseError as error:
        workflow.error(str(error))
        return 1
    return 0


def publish(version: str) -> None:
    """Tag the commit and make the release, if it is the one that was planned, and written about."""
    planned = release.plan()
    if planned is None or planned.version != version:
        raise release.ReleaseError(f"{version} is not what would be released now: start again.")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    if f"\n## [{version.removeprefix('v')}]" not in changelog:
        raise release.ReleaseError(f"CHANGELOG.md: move what is Unreleased to {version} first.")
    commit = release.run("git", "rev-parse", "HEAD")
    options = ("--target", commit, "--title", version, "--notes-file", "-")
    release.run("gh", "release", "create", version, *options, stdin=planned.notes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
