"""What a host is to `scripts/deploy.py`: the release that it runs, and how its tools are called.

A host is a module of its own, named in `scripts/host.py`, with

- `SETTINGS`, the variables that it needs, in addition to `DEPLOY_CREDENTIAL`;
- `find(version)`, the release with this version, in the form that this host takes;
- `current()`, the release that runs now, or None where no released version does;
- `deploy(release)`, which puts it in the place of what runs, and returns once it runs.

What fails is a `HostError` that says why.
"""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import TarFile

VERSION = re.compile(r"v\d+\.\d+\.\d+")
# A tool gets the one that it needs, under its own name.
CREDENTIALS = ("DEPLOY_CREDENTIAL", "SMOKE_CREDENTIAL", "GH_TOKEN")


class HostError(Exception):
    """Why the host does not run the version that it was given."""


@dataclass(frozen=True)
class Release:
    """A version, and what the host makes it from: a commit, or an image by its digest."""

    version: str
    source: str


def run(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: bytes = b"",
) -> bytes:
    """Return what a tool prints; raise `HostError` with its last words if it fails."""
    inherited = {name: value for name, value in os.environ.items() if name not in CREDENTIALS}
    try:
        done = subprocess.run(
            command,
            env={**inherited, **(env or {})},
            cwd=cwd,
            input=stdin,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise HostError(f"{command[0]} is not installed.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()
        raise HostError(f"{command[0]} ended with {done.returncode}: {said[-2000:]}")
    return done.stdout


def commit_of(version: str) -> str:
    """The commit that was released as this version."""
    if not VERSION.fullmatch(version):
        raise HostError(f"{version!r} is no version; v1.2.3 would be one.")
    try:
        found = run(["git", "rev-parse", "--verify", "--quiet", f"refs/tags/{version}^{{commit}}"])
    except HostError as error:
        raise HostError(f"There is no release {version}.") from error
    return found.decode().strip()


def file_of(version: str, path: str) -> bytes:
    """A file as it is in a version."""
    return run(["git", "show", f"{commit_of(version)}:{path}"])


def unpack(commit: str, directory: Path) -> None:
    """Write the files of a commit into a directory, and no history."""
    with TarFile(fileobj=BytesIO(run(["git", "archive", commit]))) as archive:
        archive.extractall(directory, filter="data")
