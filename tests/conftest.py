"""What every test of the template starts from: `render(**answers)`, a project of its own."""

import os
import resource
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Protocol

import copier._main
import jinja2
import pytest
import working_tree
import yaml
from combinations import COMBINATIONS, Combination
from github_server import Repository, serving
from locking import alone
from working_tree import ROOT, copy_template

# So a program that tests start keeps its compiled modules for the next process.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

BASE_ANSWERS = yaml.safe_load((ROOT / "tests/answers.yml").read_text(encoding="utf-8"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each worker begins with its share of what takes minutes: at the end, none waits for another.

    At first, xdist gives each worker a stretch of the list, and all are of one length.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    long = sorted(filter(_minutes, items), key=_minutes, reverse=True)
    short = [item for item in items if not _minutes(item)]
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        share = long[worker::workers]
        stretch = (len(items) - len(dealt)) // (workers - worker)
        others = max(0, stretch - len(share))
        dealt += share + short[:others]
        del short[:others]
    items[:] = dealt


_SECONDS = "processor seconds"
SHOWN_TESTS = 40
_used: dict[pytest.Item, float] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Note the processor time before a test, its fixtures included."""
    _used[item] = _processor_seconds()
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the processor time of a test to its last report, which a worker sends."""
    report = yield
    if call.when == "teardown":
        report.user_properties.append((_SECONDS, _processor_seconds() - _used.pop(item)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which files and which tests take the most processor time."""
    files, tests = Counter[str](), Counter[str]()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports(""):
        for name, value in report.user_properties:
            if name == _SECONDS:
                files[report.nodeid.partition("::")[0]] += value
                tests[report.nodeid] += value
    if not tests:
        return
    terminalreporter.section("processor time: minutes of user and system")
    for path, used in files.most_common():
        terminalreporter.line(f"{used / 60:6.1f}  {path}")
    terminalreporter.section("the tests that take the most of it")
    for test, used in tests.most_common(SHOWN_TESTS):
        terminalreporter.line(f"{used / 60:6.1f}  {test}")


def _processor_seconds() -> float:
    """Return the seconds of this process and of those that it started and that have ended."""
    uses = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


class Render(Protocol):
    """Render a new project with these answers, and the base answers for the rest."""

    def __call__(self, **answers: Any) -> Path: ...


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the working tree's template, as plain files."""
    return copy_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def render(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Render:
    """Render projects without prompts and `--trust`; an answer that is lost is an error."""

    def render(**answers: Any) -> Path:
        project = tmp_path_factory.mktemp("project")
        working_tree.render(template, project, BASE_ANSWERS | answers)
        return project

    return render


@pytest.fixture(scope="session")
def trees(template: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[Combination, Path]:
    """Render every combination once, for all workers together. Tests only read these."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trees"
    shared.mkdir(exist_ok=True)
    made = {combination: shared / str(combination) for combination in COMBINATIONS}
    for combination, tree in made.items():
        with alone(tree.with_name(f"{combination}.lock")):
            if not tree.exists():
                working_tree.render(template, tree, BASE_ANSWERS | combination.answers)
    return made


@pytest.fixture
def github() -> Iterator[Repository]:
    """Answer as GitHub does for one repository, without a rule yet."""
    with serving() as repository:
        yield repository


def _minutes(item: pytest.Item) -> float:
    mark = item.get_closest_marker("slow")
    return mark.kwargs.get("minutes", 0) if mark else 0


def files_of(project: Path) -> dict[str, str]:
    """Read the files of a freshly rendered project: text by path."""
    paths = [path for path in sorted(project.rglob("*")) if path.is_file()]
    return {
        path.relative_to(project).as_posix(): path.read_text(encoding="utf-8") for path in paths
    }


def git(directory: Path, *arguments: str) -> str:
    """Run Git in `directory`, and return what it printed."""
    return subprocess.run(
        ["git", *arguments], cwd=directory, check=True, capture_output=True, text=True
    ).stdout


def as_repository(directory: Path) -> Path:
    """Make a directory a Git repository with one commit, and return it."""
    for command in ("init --initial-branch main", "add --all", "commit --message all"):
        git(directory, *command.split())
    return directory


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the developer's own Copier and Git settings out of every test."""
    settings = tmp_path_factory.mktemp("settings")
    (settings / "copier.yml").write_text("defaults: {}\n")
    (settings / "gitconfig").write_text("[user]\n\tname = Nobody\n\temail = nobody@example.com\n")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("COPIER_", "GIT_"))]:
            patch.delenv(name)
        patch.setenv("COPIER_SETTINGS_PATH", str(settings / "copier.yml"))
        patch.setenv("GIT_CONFIG_GLOBAL", str(settings / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def _fast_copier() -> Iterator[None]:
    """Compile each text of the template once, and ask Git nothing about each rendered file.

    Compiled code depends on the text alone, as Copier gives every environment the same options.
    Git's answer matters only to checkouts that ignore executable bits.
    """
    compiled: dict[tuple[Any, ...], Any] = {}
    compile_text = jinja2.Environment.compile

    def compile_once(environment: jinja2.Environment, *text: Any) -> Any:
        if text not in compiled:
            compiled[text] = compile_text(environment, *text)
        return compiled[text]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jinja2.Environment, "compile", compile_once)
        patch.setattr(copier._main, "is_git_available", lambda: False)
        yield
