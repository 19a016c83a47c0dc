"""Environments that tests share, each made once."""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from locking import alone
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from working_tree import ROOT


def environment_with(requirements: Iterable[str]) -> Path:
    """Return an environment with these packages, which `make clean` removes."""
    wanted = "\n".join(sorted(requirements))
    environment = _place(f"{sys.version}\n{wanted}")
    with alone(environment.with_suffix(".lock")):
        ready = environment / "requirements.txt"
        if not ready.exists():
            uv = [sys.executable, "-m", "uv"]
            make = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)]
            subprocess.run(make, check=True)
            install = [*uv, "pip", "install", "--quiet", "--python", str(environment), "-r", "-"]
            subprocess.run(install, input=wanted, text=True, check=True)
            ready.write_text(wanted)
    return environment


def packages_of_node(manifest: Path) -> Path:
    """Return a folder with the packages of a `package.json`, which `make clean` removes."""
    wanted = manifest.read_text(encoding="utf-8")
    environment = _place(wanted)
    with alone(environment.with_suffix(".lock")):
        ready = environment / "installed"
        if not ready.exists():
            environment.mkdir(exist_ok=True)
            shutil.copy(manifest, environment)
            flags = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts"]
            subprocess.run(["npm", "install", "--silent", *flags], cwd=environment, check=True)
            ready.touch()
    return environment / "node_modules"


def distributions(requirements: Iterable[str]) -> set[str]:
    """Name what these bring with them, on every platform and Python."""
    flags = ["--quiet", "--universal", "--python-version=3.11", "--no-header", "--no-annotate", "-"]
    command = [sys.executable, "-m", "uv", "pip", "compile", *flags]
    wanted = "\n".join(sorted(requirements))
    told = subprocess.run(command, input=wanted, check=True, capture_output=True, text=True)
    return {canonicalize_name(Requirement(line).name) for line in told.stdout.splitlines()}


def _place(wanted: str) -> Path:
    """Name the folder of an environment after what is wanted there."""
    name = hashlib.sha256(wanted.encode()).hexdigest()[:16]
    environment = ROOT / "build" / "environments" / name
    environment.parent.mkdir(parents=True, exist_ok=True)
    return environment
