"""Rendered projects: their commands, the servers that they bring, and the service that they are."""

import json
import secrets
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from processes import (
    STEP_SECONDS,
    Command,
    ProcessError,
    announcing,
    answers,
    clean_environment,
    kept_port,
    listening,
    run,
)

# The servers' addresses, for as long as the process that started this one keeps its input open.
ANNOUNCE = """
import json, os, sys
names = "DATABASE_URL", "DATABASE_OWNER_URL", "REDIS_URL"
print(json.dumps({name: os.environ[name] for name in names if name in os.environ}), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Project:
    """A rendered project, the Python that has its dependencies, and its settings."""

    directory: Path
    python: Path
    settings: Mapping[str, str]

    def run(self, *arguments: str, seconds: float = STEP_SECONDS) -> str:
        """Run a module of the project to its end, and return what it printed."""
        return run([self.python, "-m", *arguments], self.directory, self.settings, seconds)

    def create_user(self, email: str, plan: str = "free") -> str:
        """Make a user, and return the credential."""
        options = ("--email", email, "--plan", plan, "--json")
        credential: str = json.loads(self.run("app", "users", "create", *options))["credential"]
        return credential

    def log(self, name: str) -> Path:
        """Where a process of this project writes: beside the project."""
        return self.directory.with_name(f"{self.directory.name}-{name}.log")


@dataclass(frozen=True)
class Service:
    """A service that runs."""

    port: int
    process: subprocess.Popen[bytes]


def requirements_of(directory: Path) -> list[str]:
    """Read what a project needs to run and to be tested."""
    metadata = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    return [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]


@contextmanager
def installed(directory: Path, python: Path, **settings: str) -> Iterator[Project]:
    """Yield a project with settings of its own; the servers that it brings run until the end."""
    given = clean_environment() | {"SECRET_KEY": secrets.token_urlsafe(48)} | settings
    project = Project(directory, python, given)
    if not (directory / "tests/backends").exists():
        yield project
        return
    command: Command = [python, "-m", "tests.backends", "--", python, "-c", ANNOUNCE]
    with announcing(command, directory, given, project.log("backends")) as addresses:
        yield replace(project, settings=given | addresses)


@contextmanager
def serving(project: Project, *options: str, log: Path | None = None) -> Iterator[Service]:
    """Run the service from when it is ready until the block ends. Raises `ProcessError` if it then
    fails.
    """
    command: Command = [project.python, "-m", "app", "serve", *options]
    with kept_port() as port:
        settings = {**project.settings, "PORT": str(port)}
        # Two may run in one project: each has a log of its own.
        log = log or project.log(str(port))
        is_ready = partial(answers, port)
        with listening(command, project.directory, settings, log, is_ready) as process:
            yield Service(port, process)
        if process.returncode:
            raise ProcessError(f"The service ended with {process.returncode}; see {log}.")


@contextmanager
def simulating(project: Project) -> Iterator[str]:
    """Run the simulator of the providers until the block ends, and yield its URL."""
    command: Command = [project.python, "-m", "tests.simulator"]
    log = project.log("simulator")
    with announcing(command, project.directory, project.settings, log) as simulator:
        url: str = simulator["url"]
        yield url
