"""Deploys to Railway, which builds each version from its source.

`DEPLOY_CREDENTIAL` is a project token, which belongs to one environment of one project, and
`RAILWAY_SERVICE` the service's name in it. Railway's command line comes through `npx`.
"""

import json
import os
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from scripts.base import HostError, Release, commit_of, run, unpack
from scripts.workflow import variable

SETTINGS = ("RAILWAY_SERVICE",)
CLI = ("npx", "--yes", "@railway/cli@5.63.1")
RUNS = {"SUCCESS", "SLEEPING"}
STARTS = {"QUEUED", "INITIALIZING", "WAITING", "BUILDING", "DEPLOYING"}
POLL_SECONDS = 5
LONGEST_SECONDS = 30 * 60


def find(version: str) -> Release:
    """The release of this version: its commit."""
    return Release(version, commit_of(version))


def current() -> Release | None:
    """What the newest deployment that succeeded was made from, as its message says."""
    for deployment in _deployments():
        if deployment["status"] in RUNS:
            return _release_of(deployment)
    return None


def deploy(release: Release) -> None:
    """Upload the files of the release and wait until Railway says that it runs."""
    with TemporaryDirectory() as scratch:
        unpack(release.source, Path(scratch))
        # The image copies it; what it shows as its version is this.
        Path(scratch, "version.txt").write_text(f"{release.version.removeprefix('v')}\n")
        message = f"{release.version} {release.source}"
        said = _railway("up", "--detach", "--json", "--message", message, cwd=Path(scratch))
    _wait_for(json.loads(said.splitlines()[-1])["deploymentId"])


def _wait_for(deployment: str) -> None:
    deadline = time.monotonic() + LONGEST_SECONDS
    while (status := _status_of(deployment)) in STARTS:
        if time.monotonic() > deadline:
            raise HostError(f"Railway still says {status} after {LONGEST_SECONDS // 60} minutes.")
        time.sleep(POLL_SECONDS)
    if status not in RUNS:
        raise HostError(f"Railway says {status} about deployment {deployment}; see its logs there.")


def _status_of(wanted: str) -> str:
    statuses = (found["status"] for found in _deployments() if found["id"] == wanted)
    # One that was just made may not be listed yet.
    return next(statuses, "QUEUED")


def _release_of(deployment: dict[str, Any]) -> Release | None:
    """Read the message, wherever Railway keeps it; one that was made by hand has another."""
    for value in (deployment.get("meta") or {}).values():
        version, _, commit = str(value).partition(" ")
        if version.startswith("v") and len(commit) == 40:
            return Release(version, commit)
    return None


def _deployments() -> list[dict[str, Any]]:
    """The service's deployments, newest first."""
    found: list[dict[str, Any]] = json.loads(_railway("deployment", "list", "--json"))
    return found


def _railway(*arguments: str, cwd: Path | None = None) -> str:
    command = [*CLI, *arguments, "--service", variable("RAILWAY_SERVICE")]
    token = {"RAILWAY_TOKEN": os.environ["DEPLOY_CREDENTIAL"]}
    return run(command, env=token, cwd=cwd).decode()
