"""Deploys to a machine with Docker, over SSH: pulls the image of a version and starts it.

`DEPLOY_CREDENTIAL` is the private key, `DEPLOY_TARGET` where the service lies, as
`ssh://user@machine/folder`, and `DEPLOY_KNOWN_HOSTS` what `ssh-keyscan` says about the machine. The
folder has a `.env`, which stays there; a deployment writes the image's name into it as `IMAGE`.
"""

import os
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from scripts.base import HostError, Release, commit_of, file_of, run
from scripts.workflow import variable

SETTINGS = ("DEPLOY_TARGET", "DEPLOY_KNOWN_HOSTS")
LABEL = "org.opencontainers.image.version"
# The image and the version of the container that is there, running or not.
CURRENT = f"""
cd -- "$1"
test -f compose.yaml || exit 0
container=$(docker compose ps --all --quiet app)
test -z "$container" ||
  docker inspect --format '{{{{.Config.Image}}}} {{{{index .Config.Labels "{LABEL}"}}}}' $container
"""
# Nothing has changed yet if the image cannot be had. Each file is there as a whole, old or new.
DEPLOY = """
cd -- "$1"
umask 077
test -f .env || { echo "There is no .env in $1." >&2; exit 1; }
docker pull --quiet "$2" >&2
cat > compose.yaml.new
{ grep -v '^IMAGE=' .env || true; echo "IMAGE=$2"; } > .env.new
mv .env.new .env
mv compose.yaml.new compose.yaml
docker compose up --detach --wait --wait-timeout 300 >&2
"""


def find(version: str) -> Release:
    """The release of this version: its image, which is an asset of it."""
    commit_of(version)
    command = ["gh", "release", "download", version, "--pattern", "image.txt", "--output", "-"]
    token = {"GH_TOKEN": os.environ.get("GH_TOKEN", "")}
    return Release(version, run(command, env=token).decode().strip())


def current() -> Release | None:
    """The image that the container was made from, if it is a released one."""
    image, _, version = _on_machine(CURRENT).decode().strip().partition(" ")
    return Release(version, image) if version.startswith("v") else None


def deploy(release: Release) -> None:
    """Start the image with its version's `compose.yaml`, and wait until it is healthy."""
    _on_machine(DEPLOY, release.source, stdin=file_of(release.version, "compose.yaml"))


def _on_machine(script: str, *arguments: str, stdin: bytes = b"") -> bytes:
    """Run a shell script in the service's folder on the machine, which has to prove who it is."""
    target = urlsplit(variable("DEPLOY_TARGET"))
    if target.scheme != "ssh" or not target.hostname or len(target.path) < 2:
        raise HostError("DEPLOY_TARGET has to look like ssh://user@machine/folder.")
    remote = shlex.join(["sh", "-euc", script, "sh", target.path, *arguments])
    with TemporaryDirectory() as scratch:
        key, known = Path(scratch, "key"), Path(scratch, "known_hosts")
        key.touch(mode=0o600)
        key.write_text(f"{os.environ['DEPLOY_CREDENTIAL'].strip()}\n")
        known.write_text(f"{variable('DEPLOY_KNOWN_HOSTS')}\n")
        options = [
            *("-i", str(key), "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"),
            *("-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=15"),
        ]
        return run(["ssh", *options, f"ssh://{target.netloc}", remote], stdin=stdin)
