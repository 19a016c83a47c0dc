"""A project's ci.yml and pr.yml as act really runs them: green when fresh, red where it is due.

The machine's Python stands for each version; what several of them saw is combined all the same.
"""

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from act import Ran, act
from conftest import BASE_ANSWERS, Render, as_repository, git
from docker_stand_in import install
from working_tree import render as render_into

pytestmark = pytest.mark.slow

OTHER = {"database": "postgres", "limiter": "redis", "auth": "basic", "host": "compose"}
JOBS = {"lint", "types", "workflows", "coverage", "migrations", "image", "drill", "ci-pass"}
ALL_PYTHONS = '["3.11", "3.12", "3.13"]'
NOT_LOCKED = "::notice title=No uv.lock::"
# What keeps a red case quick: one test, of this module.
MODULE = "app/guard/pricing.py"
TESTS = "tests/test_red.py"
FUNCTION = """

def half(amount: int) -> int:
    return amount // 2
"""
PASSING = """from app.guard import pricing


def test_one_price() -> None:
    assert pricing.MILLION == 1_000_000
"""
# Run on one Python alone, as code for the newest one would be.
ON_ONE_PYTHON = """import os

from app.guard import pricing


def test_half() -> None:
    if os.environ["COVERAGE_FILE"] == ".coverage.3.12":
        assert pricing.half(4) == 2
"""


class Project:
    """A project on GitHub with one commit on main, and where its runs keep what they keep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        as_repository(directory)
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

    def test_only(self, tests: str) -> None:
        """Have few tests run, with a floor for all lines that is low enough for them."""
        arguments = f'ARGS="{tests} --cov-report='
        self.replace(".github/workflows/ci.yml", 'ARGS="--cov-report=', arguments)
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


@pytest.fixture
def project(render: Render) -> Project:
    """A fresh project with the default answers."""
    return Project(render())


@pytest.fixture
def quick(project: Project) -> Project:
    """One with a single test."""
    (project.directory / TESTS).write_text(PASSING)
    project.test_only(TESTS)
    return project


def _jobs(ran: Ran) -> dict[str, bool]:
    """How each job ended; all of a matrix are one."""
    ended: dict[str, bool] = {}
    for name, succeeded in ran.jobs.items():
        job = name.partition(" (")[0]
        ended[job] = ended.get(job, True) and succeeded
    return ended


def test_the_first_run_of_a_fresh_project_is_green(project: Project) -> None:
    project.on_one_python()
    ran = project.run()
    assert ran.code == 0, ran.log[-20_000:]
    assert _jobs(ran) == dict.fromkeys(JOBS | {"tests"}, True)
    assert NOT_LOCKED in ran.log
    assert "The image builds, gets ready and stops." in ran.log
    assert "Diff Coverage" in ran.log


def test_what_is_locked_is_installed_with_servers_of_its_own(template: Path) -> None:
    """After the merge. All tests and the drill of this project are run by test_services.py."""
    with TemporaryDirectory(prefix="ci-") as scratch:
        Path(scratch).chmod(0o755)
        directory = Path(scratch, "project")
        render_into(template, directory, BASE_ANSWERS | OTHER | {"team": True})
        lock = [sys.executable, "-m", "uv", "lock", "--quiet", "--python", sys.executable]
        subprocess.run(lock, cwd=directory, check=True)
        project = Project(directory)
        project.on_one_python()
        project.replace(".github/workflows/ci.yml", "make drill |", "true |")
        project.test_only("tests/test_ledger.py tests/test_redis.py tests/test_basic.py")
        ran = project.run(event="push")
        assert ran.code == 0, ran.log[-20_000:]
        assert _jobs(ran) == dict.fromkeys(JOBS | {"tests"}, True)
        assert NOT_LOCKED not in ran.log
        assert "--locked" in ran.log
        assert "Diff Coverage" not in ran.log


def _unformatted(project: Project) -> None:
    project.add("app/ids.py", "\n\nlist_of_all = [ 1,2 ]\n")


def _wrong_type(project: Project) -> None:
    project.add("app/ids.py", '\n\nNUMBER: int = "one"\n')


def _cannot_be_undone(project: Project) -> None:
    project.replace("migrations/versions/0004_audit.py", '    op.drop_table("audit")\n', "")


def _not_pinned(project: Project) -> None:
    pinned = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
    project.replace(".github/workflows/pr.yml", pinned, "actions/checkout@v7")


def _no_workflow(project: Project) -> None:
    project.replace(".github/workflows/pr.yml", "timeout-minutes", "time-out-minutes")


def _image_ends(project: Project) -> None:
    project.replace("app/__main__.py", "import sys\n", 'import sys\n\nsys.exit("no longer")\n')


def _other_lock(project: Project) -> None:
    project.add("uv.lock", 'version = 1\nrequires-python = ">=3.11"\n')


@pytest.mark.parametrize(
    ("change", "job", "reason"),
    [
        (_unformatted, "lint", "unformatted: File would be reformatted"),
        (_wrong_type, "types", "Incompatible types in assignment"),
        (_cannot_be_undone, "migrations", "FAILED tests/test_migrations.py::test_they_can_be_"),
        (_not_pinned, "workflows", "unpinned-uses"),
        (_no_workflow, "workflows", "time-out-minutes"),
        (_image_ends, "image", "The service ended by itself."),
        (_other_lock, "lint", "The lockfile at `uv.lock` needs to be updated"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_its_job_is_red(project: Project, change: Any, job: str, reason: str) -> None:
    change(project)
    ran = project.run("--job", job)
    assert ran.code != 0
    assert _jobs(ran) == {job: False}, ran.log
    assert reason in ran.log, ran.log


def test_a_failing_test_is_red_and_shown(quick: Project) -> None:
    quick.on_one_python()
    quick.replace(TESTS, "1_000_000", "1")
    ran = quick.run("--job", "coverage")
    assert _jobs(ran) == {"tests": False}, ran.log
    assert "FAILED tests/test_red.py::test_one_price" in ran.log


def test_a_change_that_one_python_tests_is_green(quick: Project) -> None:
    quick.add(MODULE, FUNCTION)
    (quick.directory / TESTS).write_text(ON_ONE_PYTHON)
    ran = quick.run("--job", "coverage")
    assert ran.code == 0, ran.log
    assert _jobs(ran) == {"tests": True, "coverage": True}


def test_a_change_that_nothing_tests_is_red(quick: Project) -> None:
    quick.add(MODULE, FUNCTION)
    ran = quick.run("--job", "coverage")
    assert _jobs(ran) == {"tests": True, "coverage": False}, ran.log
    assert "Failure. Coverage is below 90" in ran.log


def test_lower_coverage_is_red(quick: Project) -> None:
    quick.on_one_python()
    quick.replace("pyproject.toml", "fail_under = 5\nshow", "fail_under = 90\nshow")
    ran = quick.run("--job", "coverage")
    assert _jobs(ran) == {"tests": True, "coverage": False}, ran.log
    assert "is less than fail-under=90" in ran.log


@pytest.mark.parametrize(
    ("title", "good"),
    [("fix: a leak", True), ("Fix a leak", False), ("$(touch ran)", False)],
)
def test_a_title_is_a_conventional_commit(project: Project, title: str, good: bool) -> None:
    ran = project.run(workflow="pr.yml", title=title)
    assert ran.jobs == {"title": good}, ran.log
