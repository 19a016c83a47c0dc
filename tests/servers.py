"""Run a rendered service, and what it needs, as its owner would."""

import asyncio
import json
import os
import secrets
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path

import pytest
from ports import kept_port

# All that is taken over from the shell, where a setting of the service may lie about.
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
START_SECONDS = 60
STEP_SECONDS = 120
STOP_SECONDS = 30

# The servers' addresses, for as long as whoever started this process keeps its input open.
ANNOUNCE = """
import json, os, sys
names = "DATABASE_URL", "REDIS_URL"
print(json.dumps({name: os.environ[name] for name in names if name in os.environ}), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Project:
    """A rendered project, the Python that has its dependencies, and its settings."""

    directory: Path
    python: Path
    settings: Mapping[str, str]

    def run(self, *arguments: str) -> str:
        """Run a module of the project to its end, and return what it printed."""
        done = subprocess.run(
            [self.python, "-m", *arguments],
            cwd=self.directory,
            env=self.settings,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def add_plan(self, name: str, requests_per_minute: int) -> None:
        """Add a plan that limits nothing but requests."""
        with (self.directory / "plans.toml").open("a", encoding="utf-8") as plans:
            plans.write(f"\n[plans.{name}]\nrequests_per_minute = {requests_per_minute}\n")

    def create_user(self, email: str, plan: str = "free") -> str:
        """Make a user, and return the credential."""
        options = ("--email", email, "--plan", plan, "--json")
        credential: str = json.loads(self.run("app", "users", "create", *options))["credential"]
        return credential


@dataclass(frozen=True)
class Answer:
    """What came back for one request."""

    status: int
    head: str
    body: str


def requirements_of(directory: Path) -> list[str]:
    """Read what a project needs to run and to be tested."""
    metadata = tomllib.loads((directory / "pyproject.toml").read_text(encoding="utf-8"))
    return [*metadata["project"]["dependencies"], *metadata["dependency-groups"]["dev"]]


def clean_environment() -> dict[str, str]:
    """Take over from the shell what programs need, and no setting."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


@contextmanager
def installed(directory: Path, python: Path) -> Iterator[Project]:
    """Yield a project with settings of its own; the servers that it brings run until the end."""
    settings = clean_environment() | {"SECRET_KEY": secrets.token_urlsafe(48)}
    with ExitStack() as servers:
        if (directory / "tests/backends").exists():
            settings |= servers.enter_context(_backends(directory, python))
        yield Project(directory, python, settings)


@contextmanager
def serving(project: Project, *options: str) -> Iterator[int]:
    """Run the service from when it is ready until the end, and yield its port."""
    with ExitStack() as stack:
        port = stack.enter_context(kept_port())
        # Two may run in one project: each has a log of its own.
        log = project.directory.with_name(f"{project.directory.name}-{port}.log")
        output = stack.enter_context(log.open("wb"))
        process = stack.enter_context(
            subprocess.Popen(
                [project.python, "-m", "app", "serve", *options],
                cwd=project.directory,
                env={**project.settings, "PORT": str(port)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        )
        try:
            wait_until_ready(process, port, log)
            yield port
        finally:
            process.terminate()
            try:
                code = process.wait(STOP_SECONDS)
            finally:
                process.kill()
        assert code == 0, log.read_text(encoding="utf-8")


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once `/readyz` says so."""
    for _ in range(START_SECONDS * 20):
        try:
            code = process.wait(0.05)
        except subprocess.TimeoutExpired:
            if _is_ready(port):
                return
        else:
            pytest.fail(f"It ended with exit code {code}:\n{log.read_text(encoding='utf-8')}")
    pytest.fail(f"It was not ready in {START_SECONDS} s:\n{log.read_text(encoding='utf-8')}")


def burst(
    ports: Sequence[int], count: int, headers: Mapping[str, str], body: object
) -> list[Answer]:
    """Send the same chat `count` times at once, to each port in turn."""
    content = json.dumps(body).encode()
    given = {
        "Host": "localhost",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    lines = ["POST /v1/chat/completions HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in given.items()]
    request = "\r\n".join([*lines, "", ""]).encode() + content

    async def send_all() -> list[Answer]:
        everyone_is_there = asyncio.Barrier(count)
        return await asyncio.gather(
            *(
                _send(ports[number % len(ports)], request, everyone_is_there)
                for number in range(count)
            )
        )

    return asyncio.run(send_all())


def processes() -> dict[int, tuple[int, str]]:
    """List the processes that run, each with its parent and its command line."""
    table = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    )
    rows = (line.split(maxsplit=3) for line in table.stdout.splitlines())
    return {int(row[0]): (int(row[1]), row[3]) for row in rows if not row[2].startswith("Z")}


def descendants(pid: int) -> set[int]:
    """Find what a process started, and what that started."""
    found = {child for child, (parent, _) in processes().items() if parent == pid}
    return found.union(*map(descendants, found))


async def _send(port: int, request: bytes, everyone_is_there: asyncio.Barrier) -> Answer:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await everyone_is_there.wait()
    try:
        writer.write(request)
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    finally:
        writer.close()
        await writer.wait_closed()
    return Answer(int(head.split()[1]), head, body)


def _is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def _backends(directory: Path, python: Path) -> Iterator[dict[str, str]]:
    """Run the servers that a project brings, and yield their addresses."""
    with subprocess.Popen(
        [python, "-m", "tests.backends", "--", python, "-c", ANNOUNCE],
        cwd=directory,
        env=clean_environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        line = process.stdout.readline()
        assert line, "The servers did not start."
        yield json.loads(line)
        process.stdin.close()
        assert process.wait(STOP_SECONDS) == 0
