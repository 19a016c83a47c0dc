"""A project's ci.yml and pr.yml as act really runs them: red where it is due, green otherwise.

The first run of a fresh project is in test_newcomer.py.

The machine's Python stands for each version; what several of them saw is combined all the same.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from act import NOT_LOCKED, Checkout, jobs_of
from conftest import BASE_ANSWERS, Render, as_repository
from working_tree import render as render_into

pytestmark = pytest.mark.slow

OTHER = {"database": "postgres", "limiter": "redis", "auth": "basic", "host": "compose"}
# What keeps a red case quick: one test, of this module.
MODULE = "app/auth/next_page.py"
TESTS = "tests/test_red.py"
FUNCTION = """

def half(amount: int) -> int:
    return amount // 2
"""
PASSING = """from app.auth import next_page


def test_one_price() -> None:
    assert next_page.SIGN_IN == "/auth/sign-in"
"""
# Run on one Python alone, as code for the newest one would be.
ON_ONE_PYTHON = """import os

from app.auth import next_page


def test_half() -> None:
    if os.environ["COVERAGE_FILE"] == ".coverage.3.12":
        assert next_page.half(4) == 2
"""


@pytest.fixture
def project(render: Render) -> Checkout:
    """A fresh project with the default answers."""
    return Checkout(as_repository(render()))


@pytest.fixture
def quick(project: Checkout) -> Checkout:
    """One with a single test."""
    (project.directory / TESTS).write_text(PASSING)
    project.test_only(TESTS)
    return project


@pytest.mark.slow(minutes=0.8)
def test_what_is_locked_is_installed_with_servers_of_its_own(template: Path) -> None:
    """After the merge. All else of this project is run by test_services.py."""
    with TemporaryDirectory(prefix="ci-") as scratch:
        Path(scratch).chmod(0o755)
        directory = Path(scratch, "project")
        render_into(template, directory, BASE_ANSWERS | OTHER | {"team": True})
        lock = [sys.executable, "-m", "uv", "lock", "--quiet", "--python", sys.executable]
        subprocess.run(lock, cwd=directory, check=True)
        project = Checkout(as_repository(directory))
        project.on_one_python()
        project.test_only("tests/test_chat.py tests/test_basic.py")
        ran = project.run("--job", "coverage", event="push")
        assert ran.code == 0, ran.log[-20_000:]
        assert jobs_of(ran) == {"tests": True, "coverage": True}
        assert NOT_LOCKED not in ran.log
        assert "--locked" in ran.log
        assert "Diff Coverage" not in ran.log
        ran = project.run("--job", "image", event="push")
        assert jobs_of(ran) == {"image": True}, ran.log[-20_000:]


def _unformatted(project: Checkout) -> None:
    project.add("gateway/ids.py", "\n\nlist_of_all = [ 1,2 ]\n")


def _wrong_type(project: Checkout) -> None:
    project.add("gateway/ids.py", '\n\nNUMBER: int = "one"\n')


def _cannot_be_undone(project: Checkout) -> None:
    project.replace("gateway/migrations/versions/0004_audit.py", '    op.drop_table("audit")\n', "")


def _not_pinned(project: Checkout) -> None:
    pinned = "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1"
    project.replace(".github/workflows/pr.yml", pinned, "actions/checkout@v7")


def _no_workflow(project: Checkout) -> None:
    project.replace(".github/workflows/pr.yml", "timeout-minutes", "time-out-minutes")


def _image_ends(project: Checkout) -> None:
    project.replace("app/__main__.py", "import sys\n", 'import sys\n\nsys.exit("no longer")\n')


def _other_lock(project: Checkout) -> None:
    project.add("uv.lock", 'version = 1\nrequires-python = ">=3.11"\n')


@pytest.mark.parametrize(
    ("change", "job", "reason"),
    [
        (_unformatted, "lint", "unformatted: File would be reformatted"),
        (_wrong_type, "types", "Incompatible types in assignment"),
        (_cannot_be_undone, "migrations", "FAILED tests/gateway/test_migrations.py::test_they"),
        (_not_pinned, "workflows", "unpinned-uses"),
        (_no_workflow, "workflows", "time-out-minutes"),
        (_image_ends, "image", "The service ended by itself."),
        (_other_lock, "lint", "The lockfile at `uv.lock` needs to be updated"),
    ],
    ids=lambda given: getattr(given, "__name__", None),
)
def test_its_job_is_red(project: Checkout, change: Any, job: str, reason: str) -> None:
    change(project)
    ran = project.run("--job", job)
    assert ran.code != 0
    assert jobs_of(ran) == {job: False}, ran.log
    assert reason in ran.log, ran.log


def test_a_failing_test_is_red_and_shown(quick: Checkout) -> None:
    quick.on_one_python()
    quick.replace(TESTS, "/auth/sign-in", "/")
    ran = quick.run("--job", "coverage")
    assert jobs_of(ran) == {"tests": False}, ran.log
    assert "FAILED tests/test_red.py::test_one_price" in ran.log


def test_a_change_that_one_python_tests_is_green(quick: Checkout) -> None:
    quick.add(MODULE, FUNCTION)
    (quick.directory / TESTS).write_text(ON_ONE_PYTHON)
    ran = quick.run("--job", "coverage")
    assert ran.code == 0, ran.log
    assert jobs_of(ran) == {"tests": True, "coverage": True}


def test_a_change_that_nothing_tests_is_red(quick: Checkout) -> None:
    quick.on_one_python()
    quick.add(MODULE, FUNCTION)
    ran = quick.run("--job", "coverage")
    assert jobs_of(ran) == {"tests": True, "coverage": False}, ran.log
    assert "Failure. Coverage is below 90" in ran.log


def test_lower_coverage_is_red(quick: Checkout) -> None:
    quick.on_one_python()
    quick.replace("pyproject.toml", "fail_under = 5\nshow", "fail_under = 90\nshow")
    ran = quick.run("--job", "coverage")
    assert jobs_of(ran) == {"tests": True, "coverage": False}, ran.log
    assert "is less than fail-under=90" in ran.log


@pytest.mark.parametrize(
    ("title", "good"),
    [("fix: a leak", True), ("Fix a leak", False), ("$(touch ran)", False)],
)
def test_a_title_is_a_conventional_commit(project: Checkout, title: str, good: bool) -> None:
    ran = project.run(workflow="pr.yml", title=title)
    assert ran.jobs == {"title": good}, ran.log
