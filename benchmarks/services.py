"""Generated services to measure: rendered, installed, migrated, with a user whom no plan stops."""

import json
import os
import re
import secrets
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from environments import environment_with
from ports import kept_port
from processes import Command, announcing, listening
from working_tree import ROOT, preview

BENCHMARKS = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "benchmarks"
# All that is taken over from the shell, where a setting of the service may lie about.
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
UNLIMITED = 100_000_000
STEP_SECONDS = 60
FILL_SECONDS = 1800

# The servers' addresses, for as long as whoever started this process keeps its input open.
ANNOUNCE = """
import json, os, sys
names = "DATABASE_URL", "REDIS_URL"
print(json.dumps({name: os.environ[name] for name in names}), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Choice:
    """The answers that decide what a service costs to run."""

    limiter: str
    database: str

    def __str__(self) -> str:
        return f"{self.limiter} + {self.database}"

    @property
    def project(self) -> Path:
        """Where the service is rendered."""
        return BUILD / f"{self.limiter}-{self.database}"


IN_MEMORY = Choice("memory", "sqlite")
SHARED = Choice("redis", "postgres")


@dataclass(frozen=True)
class Project:
    """A generated service that is ready to run."""

    choice: Choice
    python: Path
    settings: Mapping[str, str]

    @property
    def directory(self) -> Path:
        """The root of the project, in which all its commands are run."""
        return self.choice.project

    def app(self, *arguments: str) -> str:
        """Run a command of the service, and return what it printed."""
        return subprocess.run(
            [self.python, "-m", "app", *arguments],
            cwd=self.directory,
            env=self.settings,
            check=True,
            stdout=subprocess.PIPE,
            text=True,
            timeout=STEP_SECONDS,
        ).stdout

    def log(self, name: str) -> Path:
        """Where a process that belongs to this service writes."""
        return self.directory.with_name(f"{self.directory.name}-{name}.log")


@dataclass(frozen=True)
class Endpoint:
    """A server that answers chats."""

    name: str
    port: int
    process_id: int
    credential: str

    @property
    def url(self) -> str:
        """Where chats are sent to."""
        return f"http://127.0.0.1:{self.port}/v1/chat/completions"


@contextmanager
def installed(choice: Choice) -> Iterator[Project]:
    """Yield a new project with its servers, its provider's simulator and its tables."""
    preview(choice.project, {"project_name": "Benchmark", **vars(choice)})
    _lift_limits(choice.project / "plans.toml")
    python = environment_with(_requirements(choice.project)) / "bin" / "python"
    project = Project(choice, python, _settings(choice))
    with ExitStack() as children:
        servers = children.enter_context(_servers(project))
        simulator = children.enter_context(
            _module(project, "simulator", "tests.simulator", "--port", "0")
        )
        address = {"OPENAI_BASE_URL": simulator["url"] + "/openai/v1", "OPENAI_API_KEY": "any"}
        project = Project(choice, python, {**project.settings, **servers, **address})
        project.app("migrate")
        yield project


@contextmanager
def serving(project: Project) -> Iterator[Endpoint]:
    """Run the service, and create a user of it."""
    email = ("--email", f"{secrets.token_hex(4)}@example.com")
    created = json.loads(project.app("users", "create", *email, "--plan", "pro", "--json"))
    command: Command = [project.python, "-m", "app", "serve"]
    log = project.log("service")
    with kept_port() as port:
        settings = {**project.settings, "PORT": str(port)}
        with listening(command, project.directory, settings, log, port) as process:
            yield Endpoint(str(project.choice), port, process, created["credential"])


def fill(project: Project, first: int, users: int, predictions: int) -> None:
    """Give the service a past, with numbers from `first`."""
    subprocess.run(
        [project.python, "-m", "fill", *map(str, (first, users, predictions))],
        cwd=project.directory,
        env={**project.settings, "PYTHONPATH": f"{BENCHMARKS}:{project.directory}"},
        check=True,
        timeout=FILL_SECONDS,
    )


@contextmanager
def passing_through(project: Project) -> Iterator[Endpoint]:
    """Run the reference, before the same simulator."""
    log = project.log("reference")
    with kept_port() as port:
        options = f"--loop uvloop --http httptools --no-access-log --port {port}".split()
        command: Command = [project.python, "-m", "uvicorn", "pass_through:app", *options]
        with listening(command, BENCHMARKS, project.settings, log, port) as process:
            yield Endpoint("its reference", port, process, "any")


def _lift_limits(plans: Path) -> None:
    """Raise every number, as plans are what is not measured."""
    text = plans.read_text(encoding="utf-8")
    raised, count = re.subn(r"(?m)^(\w+) = [\d_.]+$", rf"\1 = {UNLIMITED}", text)
    if not count:
        raise ValueError(f"{plans} has no limit to lift.")
    plans.write_text(raised, encoding="utf-8")


def _requirements(project: Path) -> list[str]:
    metadata = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    return [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]


def _settings(choice: Choice) -> dict[str, str]:
    """Run it as its users would, but with the data on this disk."""
    settings = {name: os.environ[name] for name in INHERITED if name in os.environ}
    settings |= {"ENVIRONMENT": "production", "SECRET_KEY": secrets.token_urlsafe(48)}
    if choice.database == "sqlite":
        settings["ACCEPT_EPHEMERAL_DATABASE"] = "true"
    return settings


@contextmanager
def _servers(project: Project) -> Iterator[dict[str, Any]]:
    """Run the database and the Redis that the project brings, and yield their settings."""
    if not (project.directory / "tests" / "backends").exists():
        yield {}
        return
    announce = ["tests.backends", "--", str(project.python), "-c", ANNOUNCE]
    with _module(project, "backends", *announce) as servers:
        yield servers


def _module(project: Project, name: str, *command: str) -> AbstractContextManager[dict[str, Any]]:
    """Run a module of the project that announces what it offers."""
    return announcing(
        [project.python, "-m", *command], project.directory, project.settings, project.log(name)
    )
