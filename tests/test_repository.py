"""The repository itself: what its README, Makefile and workflows say is so."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
import yaml
from combinations import COMBINATIONS
from conftest import BASE_ANSWERS, Render, as_repository, files_of, git
from pytest_copie.plugin import Copie
from working_tree import ROOT, copy_template

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
COPIER = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERBS = re.findall(r"^\.PHONY: (.*)", MAKEFILE, flags=re.MULTILINE)[0].split()
# Verbs of a generated project that the pages speak of.
OF_PROJECTS = {
    *re.findall(
        "^([a-z-]+):.*## ", (ROOT / "template/Makefile.jinja").read_text("utf-8"), re.MULTILINE
    )
}
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# A verb run by a test uses the tools that run the test, and installs nothing over them.
BIN = Path(sys.executable).parent
MAKE = ["make", "--no-print-directory", "--assume-old=.venv/installed", f"BIN={BIN}"]
DEMO_SECONDS = 120


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Make a clone without tags and with an uncommitted change."""
    clone = copy_template(tmp_path / "clone")
    shutil.copytree(ROOT / "scripts", clone / "scripts")
    for name in ("Makefile", ".gitignore"):
        shutil.copy(ROOT / name, clone)
    as_repository(clone)
    (clone / "template/uncommitted.txt").write_text("This is not committed.\n")
    return clone


@pytest.fixture
def environment() -> dict[str, str]:
    """Set what a shell may have set, and a verb must not take for its own."""
    foreign = {"DATABASE_URL": "nonsense://", "ENVIRONMENT": "production", "PORT": "1"}
    make = ("CI", "MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    return {name: value for name, value in os.environ.items() if name not in make} | foreign


def test_help_lists_every_verb() -> None:
    listed = subprocess.run(
        [*MAKE, "help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert re.findall(r"^  make (\S+) +\S", listed, flags=re.MULTILINE) == VERBS


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_in_the_readme(verb: str) -> None:
    assert verb == "help" or f"make {verb}" in README


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_verb_and_every_link_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    used = set(re.findall(r"`make ([a-z-]+)", text))
    assert used - OF_PROJECTS <= set(VERBS)
    links = re.findall(r"\]\((?!https?://)([^)#]+)", text)
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_names_every_choice() -> None:
    asked = {
        name: question
        for name, question in COPIER.items()
        if name[0] != "_" and question.get("when", True)
    }
    named = re.findall(r"`([a-zA-Z0-9_.-]+)`", README)
    offered = [question.get("choices", {}).values() for question in asked.values()]
    # Of a question that takes yes or no, the name says all.
    values = {value for value in chain.from_iterable(offered) if isinstance(value, str)}
    assert {*asked, *values} <= set(named)


def test_the_oldest_copier_is_the_same_everywhere() -> None:
    oldest = COPIER["_min_copier_version"]
    assert f"copier>={oldest}" in PROJECT["dependency-groups"]["dev"]
    assert f"Copier {oldest} or newer" in README


def test_the_oldest_python_is_the_same_everywhere(render: Render) -> None:
    required = PROJECT["project"]["requires-python"]
    oldest = required.removeprefix(">=")
    project = render()
    theirs = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert theirs["requires-python"] == required
    for text in (README, MAKEFILE, (project / "README.md").read_text(encoding="utf-8")):
        assert f"Python {oldest} or newer" in text


def test_no_lock_file_and_no_index_is_kept() -> None:
    """Both name the machine that wrote them."""
    kept = git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    paths = [ROOT / name for name in kept if (ROOT / name).is_file()]
    assert not [path for path in paths if path.name.endswith((".lock", "lock.json", "lock.toml"))]
    index = re.compile(r":/[/]\S+/simple\b|pythonhosted[.]org")
    assert not [path for path in paths if index.search(path.read_text(encoding="utf-8"))]


def test_plain_files_are_linted_by_the_rules_that_the_projects_ship(render: Render) -> None:
    theirs = tomllib.loads((render() / "pyproject.toml").read_text(encoding="utf-8"))
    ours, theirs = PROJECT["tool"]["ruff"], theirs["tool"]["ruff"]
    assert ours["line-length"] == theirs["line-length"]
    assert ours["lint"]["select"] == theirs["lint"]["select"]
    assert ours["lint"]["ignore"] == theirs["lint"]["ignore"]


def test_preview_renders_what_is_not_committed(
    repository: Path, environment: dict[str, str]
) -> None:
    (repository / "answers.yml").write_text("project_name: Zoë's\ndatabase: postgres\n")
    before = git(repository, "status", "--porcelain")
    _make(repository, environment, "preview", "ANSWERS=answers.yml")
    assert (repository / "build/preview/uncommitted.txt").exists()
    assert (repository / "build/preview/gateway/db/postgres.py").exists()
    assert git(repository, "status", "--porcelain") == before


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (None, "Name a YAML file"),
        ("", "has no answers"),
        ("project_name: [", "while parsing"),
        ("project_name: Acme\ndatabse: postgres\n", "databse"),
        ("project_name: Acme\ndatabase: mysql\n", "Invalid choice"),
    ],
)
def test_preview_says_what_is_wrong_with_the_answers(
    repository: Path, environment: dict[str, str], answers: str | None, reason: str
) -> None:
    arguments = []
    if answers is not None:
        (repository / "answers.yml").write_text(answers)
        arguments = ["ANSWERS=answers.yml"]
    with pytest.raises(subprocess.CalledProcessError) as failed:
        _make(repository, environment, "preview", *arguments)
    assert reason in failed.value.stderr
    assert "Traceback" not in failed.value.stderr


def test_the_fast_render_is_the_one_from_git(render: Render, tmp_path: Path, copie: Copie) -> None:
    answers = {"project_name": "Acme Chat", **COMBINATIONS[-1].answers}
    result = copie.copy(answers, as_repository(copy_template(tmp_path / "template")))
    assert result.project_dir
    assert result.answers.items() >= answers.items()
    from_git, fast = (
        _without_source(project) for project in (result.project_dir, render(**answers))
    )
    assert from_git == fast


@pytest.mark.slow
def test_demo_streams_an_answer_and_leaves_nothing_behind(
    repository: Path, environment: dict[str, str]
) -> None:
    before = git(repository, "status", "--porcelain")
    output = _make(repository, environment | {"CI": "true"}, "demo")
    assert "You said:" in output
    assert re.search(r"^Cost: [1-9][\d,]* nano-dollars", output, flags=re.MULTILINE)
    assert re.search(r"^Left of the limits: 19 of 20 requests", output, flags=re.MULTILINE)
    assert re.search(r"^Console: http://127\.0\.0\.1:\d+/$", output, flags=re.MULTILINE)
    assert "Serving until" not in output
    assert git(repository, "status", "--porcelain") == before


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_demo_serves_until_it_is_stopped(
    repository: Path, environment: dict[str, str], stop: signal.Signals
) -> None:
    with subprocess.Popen(
        [sys.executable, "scripts/demo.py"],
        cwd=repository,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as demo:
        assert demo.stdout
        seen = list(_until("Serving until Ctrl-C", demo.stdout))
        demo.send_signal(stop)
        assert demo.wait(DEMO_SECONDS) == 0
    url = re.search(r"http://\S+", "".join(seen))
    assert url
    gone = subprocess.run(
        [sys.executable, "-c", CALL, url[0]], capture_output=True, text=True, check=False
    )
    assert "ConnectionRefusedError" in gone.stderr


@pytest.mark.slow
def test_demo_says_which_step_failed(repository: Path, environment: dict[str, str]) -> None:
    with (repository / "template/app/__init__.py").open("a") as package:
        package.write('raise SystemExit("This template is broken.")\n')
    with pytest.raises(subprocess.CalledProcessError) as failed:
        _make(repository, environment | {"CI": "true"}, "demo")
    assert "This template is broken." in failed.value.stderr
    assert re.search(r"The demo stopped: .*migrate` failed with exit code 1", failed.value.stderr)


def test_what_must_pass_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci/run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").splitlines()[-1] == "make test"
    subprocess.run(["bash", "-n", script], check=True)


CALL = "import sys, urllib.request; urllib.request.urlopen(sys.argv[1])"


def _make(directory: Path, environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [*MAKE, *arguments],
        cwd=directory,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
    ).stdout


def _until(text: str, lines: Iterator[str]) -> Iterator[str]:
    """Yield lines up to the first with this text, which must come."""
    for line in lines:
        yield line
        if text in line:
            return
    pytest.fail(f"It ended before it said {text!r}.")


def _without_source(project: Path) -> dict[str, str]:
    """Read a project, save for where its template lies."""
    files = files_of(project)
    answers = files[".copier-answers.yml"]
    return files | {
        ".copier-answers.yml": re.sub(r"^_(src_path|commit): .*\n", "", answers, flags=re.MULTILINE)
    }


@pytest.mark.parametrize("verb", ["demo", "test-quick"])
def test_an_old_python_is_told_the_command_to_type(verb: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    said = subprocess.run(
        ["make", "--dry-run", verb], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert f'make PYTHON=python3.13 {verb}"' in said.stdout


def test_what_copier_says_at_the_end_can_be_typed(template: Path, tmp_path: Path) -> None:
    project = tmp_path / "my service's"
    answers = [f"--data={name}={value}" for name, value in BASE_ANSWERS.items()]
    command = [sys.executable, "-m", "copier", "copy", "--defaults", *answers, str(template)]
    copied = subprocess.run([*command, str(project)], capture_output=True, text=True, check=True)
    (line,) = re.findall(r"^ *(cd .*)$", copied.stderr, re.MULTILINE)
    went = subprocess.run(
        ["sh", "-c", f"{line} && pwd"], capture_output=True, text=True, check=True
    )
    assert went.stdout == f"{project}\n"
