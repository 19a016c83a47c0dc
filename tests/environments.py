"""Virtual environments that tests share, each made once."""

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from locking import alone
from working_tree import ROOT


def environment_with(requirements: Iterable[str]) -> Path:
    """Return an environment with these packages, which `make clean` removes."""
    wanted = "\n".join(sorted(requirements))
    name = hashlib.sha256(f"{sys.version}\n{wanted}".encode()).hexdigest()[:16]
    environment = ROOT / "build" / "environments" / name
    environment.parent.mkdir(parents=True, exist_ok=True)
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
