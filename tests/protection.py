"""Run a project's scripts/protect.py against the stand-in for GitHub, as its owner does."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from github_server import ADMIN, REPOSITORY, Repository
from processes import clean_environment
from working_tree import ROOT

SECONDS = 60


def rulesets_of(project: Path) -> dict[str, dict[str, Any]]:
    """Read the rulesets of a project by their names."""
    paths = sorted((project / ".github/rulesets").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def environment(github: Repository, token: str = ADMIN) -> dict[str, str]:
    """Set what the script reads; the rest of the shell stays outside."""
    told = {"GITHUB_API_URL": github.url, "GITHUB_REPOSITORY": REPOSITORY, "GH_TOKEN": token}
    return clean_environment() | {name: value for name, value in told.items() if value}


def protect(
    project: Path, github: Repository, *arguments: str, token: str = ADMIN, **settings: str
) -> subprocess.CompletedProcess[str]:
    """Run the script to its end: whatever happens, it shows no token, and no trace of itself."""
    done = subprocess.run(
        [sys.executable, "scripts/protect.py", *arguments],
        cwd=project,
        env=environment(github, token) | settings,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    said = done.stdout + done.stderr
    assert not token or token not in said
    assert "Traceback" not in said, said
    return done


def applied(project: Path, github: Repository) -> Repository:
    """Make GitHub follow the files of a project."""
    done = protect(project, github, "apply")
    assert done.returncode == 0, done.stderr
    github.requests.clear()
    github.credentials.clear()
    return github


def lines_of(text: str) -> list[str]:
    """Read the lines of a difference."""
    return [line.strip() for line in text.splitlines() if line.startswith(("  +", "  -"))]


def stand_in_for_gh(directory: Path, text: str) -> dict[str, str]:
    """Put a program called `gh` first in the path, and return the setting that does so."""
    program = directory / "gh"
    program.write_text(f"#!{sys.executable}\n{text}", encoding="utf-8")
    program.chmod(0o755)
    return {"PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}


def complaint_of(tool: str, *arguments: str | Path) -> str:
    """Run a linter that is installed beside this Python; return what it says about an error."""
    command = [Path(sys.executable).with_name(tool), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr
