"""Workflows as act really runs them, without Docker: actions have stand-ins in tests/actions/."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from conftest import git
from docker_stand_in import install
from processes import on_memory_disk
from working_tree import ROOT

BIN = Path(sys.executable).parent
ACT_SECONDS = 1200
ALL_PYTHONS = '["3.11", "3.12", "3.13"]'
# Of ci.yml; those of a matrix count as one.
JOBS = {
    "lint",
    "types",
    "workflows",
    "tests",
    "gateway",
    "coverage",
    "migrations",
    "image",
    "drill",
    "ci-pass",
}
NOT_LOCKED = "::notice title=No uv.lock::"
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;;.*?\x1b\\")


@dataclass(frozen=True)
class Ran:
    """What came of a run: its jobs and how each ended, and all that was printed."""

    code: int
    log: str

    @property
    def jobs(self) -> dict[str, bool]:
        """By name, whether a job that ran succeeded."""
        ended = re.findall(r"^\[([^\]]+)\] 🏁  Job (succeeded|failed)", self.log, re.MULTILINE)
        return {_name(job): how == "succeeded" for job, how in ended}

    @property
    def failures(self) -> str:
        """What the jobs that failed printed last: act mixes those that run at the same time."""
        failed = {job for job, succeeded in self.jobs.items() if not succeeded}
        lines = re.findall(r"^\[([^\]]+)\](.*)", self.log, re.MULTILINE)
        said = [f"{_name(job)}: {line}" for job, line in lines if _name(job) in failed]
        return "\n".join(said[-60:])


def _name(job: str) -> str:
    """Name a job as its workflow does; act says the workflow too, and pads."""
    return job.strip().rsplit("/", 1)[-1]


def act(
    directory: Path,
    event: str,
    workflow: str,
    *arguments: str,
    path: Sequence[Path] = (),
    **options: dict[str, str],
) -> Ran:
    """Run a workflow of a repository; each option, such as `secret`, has values by name."""
    command = [str(BIN / "act"), event, "--pull=false", "--no-cache-server"]
    command += ["-P", "ubuntu-24.04=-self-hosted"]
    command += [*_stand_in_actions(directory), *arguments]
    for option, values in options.items():
        command += [f"--{option}={name}={value}" for name, value in values.items()]
    # What `make test` sets or was given is not for the make of a project.
    own = {"ARGS", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    given = {name: value for name, value in os.environ.items() if name not in own}
    programs = os.pathsep.join([*map(str, [*path, BIN]), os.environ["PATH"]])
    with _known_to_act(directory / ".github/workflows" / workflow) as file:
        done = subprocess.run(
            [*command, "-W", file],
            cwd=directory,
            env={"UV_SYSTEM_CERTS": "true"} | given | {"PATH": programs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=ACT_SECONDS,
            check=False,
        )
    return Ran(done.returncode, COLOUR.sub("", done.stdout))


@contextmanager
def _known_to_act(workflow: Path) -> Iterator[Path]:
    """Write it aside with another name for its own repository than `$/`, which act knows not."""
    with TemporaryDirectory(prefix="workflows-") as folder:
        copy = Path(folder, workflow.name)
        copy.write_text(workflow.read_text(encoding="utf-8").replace("uses: $/", "uses: ./"))
        yield copy


def _stand_in_actions(directory: Path) -> Iterator[str]:
    """Put a stand-in in the place of every action that has one; act has a checkout of its own."""
    texts = [path.read_text(encoding="utf-8") for path in (directory / ".github").glob("**/*.yml")]
    for action in set(re.findall(r"uses: ([\w-]+/[\w-]+@[0-9a-f]{40})", "\n".join(texts))):
        folder = ROOT / "tests/actions" / action.partition("/")[2].partition("@")[0]
        if folder.exists():
            yield f"--local-repository={action}={folder}"


class Checkout:
    """A project's repository, and where its runs keep what they keep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.base = git(directory, "rev-parse", "HEAD").strip()
        self.programs = install(directory.with_name(f"{directory.name}-bin"))

    def replace(self, path: str, old: str, new: str) -> None:
        """Change a file, of whose text there must be some."""
        file = self.directory / path
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new))

    def add(self, path: str, text: str) -> None:
        """Put something at the end of a file, which may be new."""
        with (self.directory / path).open("a", encoding="utf-8") as file:
            file.write(text)

    def on_one_python(self) -> None:
        """Have the tests run once, as each Python would be the same."""
        self.replace(".github/workflows/ci.yml", ALL_PYTHONS, '["3.11"]')

    def drill_in_memory(self) -> None:
        """Have the drill keep its database in memory: other tests write to the disk meanwhile."""
        settings = "".join(f"{name}={value} " for name, value in on_memory_disk().items())
        self.replace(".github/workflows/ci.yml", "run: make drill", f"run: {settings}make drill")

    def test_only(self, tests: str) -> None:
        """Have few tests run, with a floor for all lines that is low enough for them."""
        arguments = f'ARGS="{tests} --cov-report='
        self.replace(".github/workflows/ci.yml", 'ARGS="--cov-report=', arguments)
        gateways = 'run: make test-gateway ARGS="-k test_prices"'
        self.replace(".github/workflows/ci.yml", "run: make test-gateway", gateways)
        self.replace("pyproject.toml", "fail_under = 90\nshow", "fail_under = 5\nshow")

    def run(
        self, *arguments: str, event: str = "pull_request", workflow: str = "ci.yml", **pull: Any
    ) -> Ran:
        """Commit what was changed, and run a workflow, as for a pull request or a push."""
        git(self.directory, "add", "--all")
        git(self.directory, "commit", "--allow-empty", "--quiet", "--message", "fix: a change")
        with TemporaryDirectory(prefix="act-") as scratch:
            # PostgreSQL does not run as root: its files have to be within reach of others.
            Path(scratch).chmod(0o755)
            payload, kept = Path(scratch, "event.json"), Path(scratch, "kept")
            pull = {"base": {"sha": self.base}, **pull}
            payload.write_text(json.dumps({"pull_request": pull} if "pull" in event else {}))
            kept.mkdir()
            within = ("--eventpath", str(payload), "--action-cache-path", scratch, *arguments)
            return act(
                self.directory,
                event,
                workflow,
                *within,
                path=[self.programs],
                env={"ARTIFACTS": str(kept)},
            )


def jobs_of(ran: Ran) -> dict[str, bool]:
    """How each job ended; all of a matrix are one."""
    ended: dict[str, bool] = {}
    for name, succeeded in ran.jobs.items():
        job = name.partition(" (")[0]
        ended[job] = ended.get(job, True) and succeeded
    return ended
