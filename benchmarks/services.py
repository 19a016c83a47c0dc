"""Generated services to measure: rendered, installed, migrated, with a user whom no plan stops."""

import json
import re
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from environments import environment_with
from processes import Command, answers, kept_port, listening, run
from projects import Project, installed, requirements_of, serving, simulating
from working_tree import ROOT, preview

BENCHMARKS = Path(__file__).resolve().parent
BUILD = ROOT / "build" / "benchmarks"
UNLIMITED = 100_000_000
FILL_SECONDS = 1800


@dataclass(frozen=True)
class Choice:
    """The answers that decide what a service costs to run."""

    limiter: str
    database: str
    auth: str = "api_key"

    def __str__(self) -> str:
        return f"{self.limiter} + {self.database}"

    @property
    def project(self) -> Path:
        """Where the service is rendered."""
        return BUILD / f"{self.limiter}-{self.database}-{self.auth}"


IN_MEMORY = Choice("memory", "sqlite")
SHARED = Choice("redis", "postgres")
PASSWORDS = Choice("memory", "sqlite", "jwt")


@dataclass(frozen=True)
class Measured(Project):
    """A generated service that is ready to run."""

    choice: Choice


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

    def resident_memory(self) -> float | None:
        """Read how much memory the process holds now, in MiB; None where there is no /proc."""
        try:
            status = Path(f"/proc/{self.process_id}/status").read_text(encoding="utf-8")
        except OSError:
            return None
        kibibytes = re.search(r"(?m)^VmRSS:\s*(\d+) kB$", status)
        return int(kibibytes[1]) / 1024 if kibibytes else None


@contextmanager
def measured(choice: Choice) -> Iterator[Measured]:
    """Yield a new project with its servers, its provider's simulator and its tables."""
    preview(choice.project, {"project_name": "Benchmark", **vars(choice)})
    _lift_limits(choice.project / "plans.toml")
    python = environment_with(requirements_of(choice.project)) / "bin/python"
    with ExitStack() as children:
        given = children.enter_context(installed(choice.project, python, **_settings(choice)))
        url = children.enter_context(simulating(given))
        address = {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": "any"}
        project = Measured(choice.project, python, {**given.settings, **address}, choice)
        project.run("app", "migrate")
        yield project


@contextmanager
def answering(project: Measured) -> Iterator[Endpoint]:
    """Run the service, and create a user of it."""
    credential = project.create_user(f"{secrets.token_hex(4)}@example.com", "pro")
    with serving(project, log=project.log("service")) as service:
        yield Endpoint(str(project.choice), service.port, service.process.pid, credential)


def people(project: Project, count: int) -> list[dict[str, str]]:
    """Make users, and return their e-mail addresses and passwords."""
    settings = {**project.settings, "PYTHONPATH": f"{BENCHMARKS}:{project.directory}"}
    printed = run([project.python, "-m", "people", str(count)], project.directory, settings)
    made: list[dict[str, str]] = json.loads(printed)
    return made


def fill(project: Project, first: int, users: int, predictions: int) -> None:
    """Give the service a past, with numbers from `first`."""
    settings = {**project.settings, "PYTHONPATH": f"{BENCHMARKS}:{project.directory}"}
    numbers = map(str, (first, users, predictions))
    run([project.python, "-m", "fill", *numbers], project.directory, settings, FILL_SECONDS)


@contextmanager
def passing_through(project: Project) -> Iterator[Endpoint]:
    """Run the reference, before the same simulator."""
    log = project.log("reference")
    with kept_port() as port:
        options = f"--loop uvloop --http httptools --no-access-log --port {port}".split()
        command: Command = [project.python, "-m", "uvicorn", "pass_through:app", *options]
        is_ready = partial(answers, port, "/docs")
        with listening(command, BENCHMARKS, project.settings, log, is_ready) as process:
            yield Endpoint("its reference", port, process.pid, "any")


def _lift_limits(plans: Path) -> None:
    """Raise every number, as plans are what is not measured."""
    text = plans.read_text(encoding="utf-8")
    raised, count = re.subn(r"(?m)^(\w+) = [\d_.]+$", rf"\1 = {UNLIMITED}", text)
    if not count:
        raise ValueError(f"{plans} has no limit to lift.")
    plans.write_text(raised, encoding="utf-8")


def _settings(choice: Choice) -> dict[str, str]:
    """Run it as its users would, but with the data on this disk."""
    ephemeral = {"ACCEPT_EPHEMERAL_DATABASE": "true"} if choice.database == "sqlite" else {}
    return {"ENVIRONMENT": "production"} | ephemeral
