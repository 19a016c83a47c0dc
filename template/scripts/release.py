"""Compute the next release from the commits since the last one, and publish it.

    python -m scripts.release plan
    python -m scripts.release publish v1.2.3 --image ghcr.io/OWNER/NAME@sha256:…

`plan` says the version and its notes, and changes nothing; without a version there is nothing to
release. `publish` makes the tag and the release on GitHub, with the image's name as an asset: from
there a deployment learns which image a version is. Needs git-cliff and, to publish, GitHub's `gh`.

Exit codes: 0, done or nothing to release; 1, refused or failed.
"""

import argparse
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts import workflow

MAIN = "refs/heads/main"
VERSION = re.compile(r"v\d+\.\d+\.\d+")
IMAGE = re.compile(r"\S+@sha256:[0-9a-f]{64}")
# The asset of a release that names its image.
ASSET = "image.txt"


class ReleaseError(Exception):
    """Why nothing was released, and what to do about it."""


@dataclass(frozen=True)
class Plan:
    """The next release."""

    version: str
    notes: str


def run(*command: str, stdin: str = "") -> str:
    """Return what a command prints; raise `ReleaseError` with its complaint if it fails."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ReleaseError(f"{command[0]} is not installed.") from error
    if done.returncode:
        raise ReleaseError(f"{' '.join(command[:3])} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def plan() -> Plan | None:
    """The next release, or None where no commit since the last one is a reason for one."""
    if os.environ.get("GITHUB_REF", MAIN) != MAIN:
        raise ReleaseError("Only main is released: choose it under “Use workflow from”.")
    if run("git", "rev-parse", "--is-shallow-repository") == "true":
        raise ReleaseError("The history is cut off: check it out with `fetch-depth: 0`.")
    version = run("git-cliff", "--bumped-version")
    if not VERSION.fullmatch(version):
        raise ReleaseError(f"git-cliff computed {version!r}, which is no version.")
    if run("git", "tag", "--merged", "HEAD", "--list", version):
        return None
    if run("git", "tag", "--list", version):
        raise ReleaseError(f"The tag {version} is there, on a commit that is not on main.")
    notes = run("git-cliff", "--bump", "--unreleased", "--strip", "all")
    return Plan(version, notes or "Nothing that a user would notice.")


def publish(version: str, image: str) -> None:
    """Tag the commit and make the release, if it is still the one that was planned."""
    if not IMAGE.fullmatch(image):
        raise ReleaseError(f"{image!r} does not name an image by its digest.")
    planned = plan()
    if planned is None or planned.version != version:
        found = planned.version if planned else "nothing"
        raise ReleaseError(f"{version} was planned, but now it would be {found}: start again.")
    commit = run("git", "rev-parse", "HEAD")
    notes = f"{planned.notes}\n\nImage: `{image}`\n"
    with TemporaryDirectory() as scratch:
        asset = Path(scratch) / ASSET
        asset.write_text(f"{image}\n", encoding="utf-8")
        options = ("--target", commit, "--title", version, "--notes-file", "-")
        run("gh", "release", "create", version, str(asset), *options, stdin=notes)
    workflow.summary(f"## Released {version}\n\n`{image}`")


def tell(planned: Plan | None) -> None:
    """Show the plan, and hand its version to the jobs that follow."""
    if planned is None:
        workflow.notice("Nothing to release: no commit since the last release is a reason for one.")
        workflow.summary("## Nothing to release")
    else:
        workflow.summary(f"## {planned.version}\n\n{planned.notes}")
    workflow.output("version", planned.version if planned else "")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.release", description="Release main.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("plan", help="say version and notes, and change nothing")
    publishing = commands.add_parser("publish", help="tag it, and make the release on GitHub")
    publishing.add_argument("version", help="the planned version, such as v1.2.3")
    publishing.add_argument("--image", required=True, help="the image, by its digest")
    given = parser.parse_args(arguments)
    try:
        if given.command == "plan":
            tell(plan())
        else:
            publish(given.version, given.image)
    except ReleaseError as error:
        workflow.error(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
