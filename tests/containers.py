"""Build images without Docker or a registry, and run what is in them as a host would."""

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from locking import alone
from processes import answers, kept_port, wait_until_ready
from working_tree import ROOT

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
# pip's settings that a build here needs as well; others name files that it does not see.
FROM_THIS_MACHINE = {"cert", "default-timeout", "index-url", "proxy", "timeout", "trusted-host"}
# What the real base has: `python` and `pip` on the path, and the usual certificates.
MAKE_BASE = """
mmdebstrap --quiet --variant=minbase --include=python3,python3-pip,ca-certificates
--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*'
--customize-hook='ln -s python3 $1/usr/bin/python'
--customize-hook='rm $1/usr/lib/python3*/EXTERNALLY-MANAGED'
bookworm base.tar
"""
# Another recipe is another cache. It holds one base; what is built on it is removed after its test.
CACHE = ROOT / "build/images" / hashlib.sha256(MAKE_BASE.encode()).hexdigest()[:12]
# A read-only root with what a host mounts into it; then the command, in the place of this shell.
RUN_READ_ONLY = """
set -eu
mount --bind "$ROOT" "$ROOT"
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/tmp"
test -z "$VOLUME" || mount --bind "$VOLUME" "$ROOT/data"
mount -o remount,bind,ro "$ROOT"
exec chroot --userspec="$RUN_AS" --groups= "$ROOT" /usr/bin/env -i "$@"
"""


@dataclass(frozen=True)
class Image:
    """A built image: its files, mounted, and what it says about running them."""

    root: Path
    config: dict[str, Any]


@dataclass(frozen=True)
class Service:
    """A command of an image that runs and listens."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def get(self, path: str) -> int:
        """Ask for `path` and return the status of the answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    @property
    def pid(self) -> int:
        """Its number outside; inside it is process 1."""
        starter = self.process.pid
        return int(Path(f"/proc/{starter}/task/{starter}/children").read_text())

    def status(self) -> dict[str, str]:
        """What the kernel says about the process: its user, groups, capabilities."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}

    def stop(self, within: float) -> int:
        """Ask it to stop, as a host does, and return its exit code; a host kills what is late."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(within)


def require_tools() -> None:
    """Skip where images cannot be built; in CI, where they must be, fail."""
    missing = [tool for tool in ("buildah", "mmdebstrap", "unshare") if not shutil.which(tool)]
    reasons = [f"install {' and '.join(missing)}"] if missing else []
    reasons += ["be root"] if os.geteuid() else []
    if reasons:
        give_up = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        give_up(f"To build an image here: {', '.join(reasons)}.")


@contextmanager
def built(project: Path, scratch: Path) -> Iterator[Image]:
    """Build the image of a project on a stand-in for its base, and mount it."""
    (base,) = set(re.findall(r"^FROM (\S+)", (project / "Dockerfile").read_text(), re.MULTILINE))
    _ensure_base(f"docker.io/library/{base}")
    name = f"test-{os.getpid()}"
    mounts = [f"--volume={mount}:ro" for mount in _settings_of_this_machine(scratch)]
    _buildah("build", "--quiet", "--pull-never", *mounts, f"--tag={name}", str(project))
    container = _buildah("from", "--pull-never", name)
    try:
        config = json.loads(_buildah("inspect", "--type=image", name))["Docker"]["config"]
        yield Image(Path(_buildah("mount", container)), config)
    finally:
        _buildah("rm", container)
        _buildah("rmi", name)


def run(
    image: Image, command: Sequence[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command in an image to its end, as the image's user on a read-only root."""
    arguments, variables = _inside(image, command, environment, image.config["User"], None)
    return subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False)


@contextmanager
def running(
    image: Image,
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    log: Path,
    user: str,
    volume: Path,
) -> Iterator[Service]:
    """Run a command in an image, its root read-only but for `/data`; wait until it listens."""
    with ExitStack() as stack:
        port = stack.enter_context(kept_port())
        environment = {**environment, "PORT": str(port)}
        arguments, variables = _inside(image, command, environment, user, volume)
        output = stack.enter_context(log.open("wb"))
        process = stack.enter_context(
            subprocess.Popen(arguments, env=variables, stdout=output, stderr=subprocess.STDOUT)
        )
        try:
            wait_until_ready(process, partial(answers, port, "/livez"), log)
            yield Service(process, port, log)
        finally:
            process.kill()


def _inside(
    image: Image,
    command: Sequence[str],
    environment: Mapping[str, str],
    user: str,
    volume: Path | None,
) -> tuple[list[str], dict[str, str]]:
    """What starts a command as process 1 of namespaces of its own, and the variables of that."""
    arguments = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
    arguments += ["sh", "-c", RUN_READ_ONLY, "sh"]
    arguments += [f"--chdir={image.config['WorkingDir']}", *image.config["Env"]]
    arguments += [*(f"{name}={value}" for name, value in environment.items()), *command]
    mounts = {"ROOT": str(image.root), "VOLUME": str(volume or ""), "RUN_AS": user}
    return arguments, os.environ | mounts


def _buildah(*arguments: str) -> str:
    # Neither an overlay file system nor a container runtime is needed, only root's rights.
    storage = ["--storage-driver=vfs", f"--root={CACHE}/storage", f"--runroot={CACHE}/run"]
    environment = os.environ | {"BUILDAH_ISOLATION": "chroot"}
    command = ["buildah", *storage, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.fail(f"{shlex.join(command)}:\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout.strip()


def _ensure_base(name: str) -> None:
    """Make the stand-in once, under the name of the real base, for all processes that want it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with alone(CACHE / "lock"):
        if name in _buildah("images", "--format={{.Name}}:{{.Tag}}").split():
            return
        subprocess.run(shlex.split(MAKE_BASE), cwd=CACHE, check=True)
        (CACHE / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
        _buildah("build", "--quiet", f"--tag={name}", str(CACHE))
        (CACHE / "base.tar").unlink()


def _settings_of_this_machine(scratch: Path) -> Iterator[str]:
    """Where this machine finds packages and certificates, as what a build mounts."""
    list_settings = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(list_settings, capture_output=True, text=True, check=True).stdout
    # The name has the file or the environment before it: `global.index-url='…'`.
    found = re.findall(r"^.*\.([a-z-]+)='(.*)'$", listed, re.MULTILINE)
    pip = {name: value for name, value in found if name in FROM_THIS_MACHINE}
    uv = {"system-certs": True} | {name: pip[name] for name in ("index-url",) if name in pip}
    certificates = pip.pop("cert", None) or ssl.get_default_verify_paths().cafile
    if certificates and Path(certificates).is_file():
        yield f"{certificates}:{CERTIFICATES}"
        pip["cert"] = CERTIFICATES
    conf = ["[global]", *(f"{name} = {value}" for name, value in pip.items())]
    (scratch / "pip.conf").write_text("\n".join(conf))
    toml = [f"{name} = {json.dumps(value)}" for name, value in uv.items()]
    (scratch / "uv.toml").write_text("\n".join(toml))
    yield f"{scratch}/pip.conf:/etc/pip.conf"
    yield f"{scratch}/uv.toml:/etc/uv/uv.toml"
