"""This repository lives by the rules that it gives to projects."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from combinations import AUTHS, DATABASES, HOSTS, LIMITERS
from conftest import Render, git
from github_server import Repository
from protection import protect
from working_tree import ROOT, answers_of

# What is the same here and there, to the byte.
SHARED = (
    ".github/rulesets/main.json",
    ".github/rulesets/tags.json",
    ".github/workflows/pr.yml",
    ".github/workflows/protect.yml",
    ".github/workflows/security.yml",
    "cliff.toml",
)
EXAMPLES = sorted((ROOT / "examples").glob("*.yml"))


@pytest.fixture
def project(render: Render) -> Path:
    return render()


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_is_the_same(project: Path, name: str) -> None:
    assert (ROOT / name).read_bytes() == (project / name).read_bytes()


def test_the_required_check_is_a_job() -> None:
    rules = json.loads((ROOT / SHARED[0]).read_text(encoding="utf-8"))["rules"]
    (checks,) = (rule for rule in rules if rule["type"] == "required_status_checks")
    (required,) = checks["parameters"]["required_status_checks"]
    workflow = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    assert required["context"] in yaml.safe_load(workflow)["jobs"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_renders(render: Render, path: Path) -> None:
    answers = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert answers_of(render(**answers)).items() >= answers.items()


def test_every_example_is_run() -> None:
    workflow = (ROOT / ".github/workflows/examples.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(workflow)["jobs"]["example"]["strategy"]["matrix"]
    assert matrix["example"] == [path.stem for path in EXAMPLES]


def test_the_examples_differ_in_every_part(render: Render) -> None:
    chosen = [answers_of(render(**yaml.safe_load(path.read_text()))) for path in EXAMPLES]
    for name, values in {"database": DATABASES, "limiter": LIMITERS, "auth": AUTHS}.items():
        assert {answers[name] for answers in chosen} == set(values)
    assert {answers["host"] for answers in chosen} == set(HOSTS)


def test_the_rulesets_are_applied_with_the_projects_script(github: Repository) -> None:
    assert protect(ROOT, github, "check").returncode == 2
    assert protect(ROOT, github, "apply").returncode == 0
    assert protect(ROOT, github, "check").returncode == 0


@pytest.mark.parametrize(("title", "code"), [("feat: new", 0), ("new things", 1)])
def test_titles_are_checked_with_the_projects_script(tmp_path: Path, title: str, code: int) -> None:
    (tmp_path / "title").write_text(title)
    assert (
        _run(tmp_path, str(ROOT / "scripts/conventional.py"), "--title", "title").returncode == code
    )


# Releases


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """This repository's scripts and changelog in a repository with one release."""
    clone = tmp_path / "scratch"
    shutil.copytree(ROOT / "template/scripts", clone / "template/scripts")
    (clone / "scripts").mkdir()
    for name in ("cliff.toml", "scripts/release.py"):
        shutil.copy(ROOT / name, clone / name)
    (clone / "CHANGELOG.md").write_text("# Changelog\n\n## [0.1.0]\n")
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(clone))
    _commit(clone, "feat: the first")
    git(clone, "tag", "v0.1.0")
    return clone


@pytest.mark.parametrize(
    ("message", "version"),
    [
        ("fix: it works", "v0.1.1"),
        ("feat: it is new", "v0.2.0"),
        ("docs: it is told", ""),
    ],
)
def test_the_version_comes_from_the_commits(scratch: Path, message: str, version: str) -> None:
    _commit(scratch, message)
    assert _planned(scratch) == version


def test_a_release_is_written_about_first(scratch: Path, tmp_path: Path) -> None:
    _commit(scratch, "feat: it is new")
    refused = _publish(scratch, tmp_path, "v0.2.0")
    assert refused.returncode == 1
    assert "CHANGELOG.md" in refused.stderr
    (scratch / "CHANGELOG.md").write_text("# Changelog\n\n## [0.2.0]\n\n## [0.1.0]\n")
    assert _publish(scratch, tmp_path, "v0.9.0").returncode == 1
    assert _publish(scratch, tmp_path, "v0.2.0").returncode == 0
    arguments = (tmp_path / "called").read_text().split()
    commit = git(scratch, "rev-parse", "HEAD").strip()
    assert arguments[:5] == ["release", "create", "v0.2.0", "--target", commit]
    assert "It is new" in (tmp_path / "notes").read_text()


def _commit(clone: Path, message: str) -> None:
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--allow-empty", "--message", message)


def _planned(clone: Path) -> str:
    output = clone / "output"
    done = _run(clone, "scripts/release.py", "plan", GITHUB_OUTPUT=str(output))
    assert done.returncode == 0, done.stderr
    return output.read_text().strip().removeprefix("version=")


def _publish(clone: Path, directory: Path, version: str) -> subprocess.CompletedProcess[str]:
    """Publish, with a stand-in for GitHub's command line that notes what it is asked."""
    tool = directory / "bin/gh"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(f'#!/bin/sh\necho "$@" > {directory}/called\ncat > {directory}/notes\n')
    tool.chmod(0o755)
    path = f"{tool.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return _run(clone, "scripts/release.py", "publish", version, PATH=path)


def _run(directory: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={"PATH": path, "HOME": str(directory), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
