"""This repository lives by the rules that it gives to projects."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import AUTHS, DATABASES, HOSTS, LIMITERS, PROVIDERS
from conftest import Render
from github_schemas import CREATE, UPDATE, complaints
from github_server import Repository
from protection import protect, rulesets_of
from working_tree import ROOT, answers_of

# What is the same here and there, to the byte.
RULESET = ".github/rulesets/main.json"
SHARED = (
    ".gitattributes",
    RULESET,
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


@pytest.mark.parametrize("name", SHARED)
def test_what_is_shared_speaks_of_what_is_here(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    files = re.findall(r"\b(?:docs|scripts|tests)/[\w./-]+\w", text)
    assert not [file for file in files if not (ROOT / file).exists()]
    verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert {*re.findall(r"make ([a-z-]+)`", text)} <= {*verbs}


def test_owners_are_explained_as_in_projects(project: Path) -> None:
    """Who they are is not the same: here whoever keeps this repository enters them."""
    ours, theirs = (
        [line for line in (root / ".github/CODEOWNERS").read_text().splitlines() if line[0] == "#"]
        for root in (ROOT, project)
    )
    assert ours == theirs


def test_the_pythons_are_the_first_and_the_last_of_projects(project: Path) -> None:
    ours = _workflow("ci")["jobs"]["test"]["strategy"]["matrix"]["python"]
    theirs = _workflow("ci", project)["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert ours == [theirs[0], theirs[-1]]
    assert _workflow("examples")["jobs"]["example"]["steps"][1]["with"]["python-version"] in ours


def test_what_must_pass_is_run_for_every_change(project: Path) -> None:
    ours, theirs = _workflow("ci"), _workflow("ci", project)
    # YAML takes `on` for true.
    assert (
        ours[True]
        == theirs[True]
        == {
            "pull_request": None,
            "merge_group": None,
            "push": {"branches": ["main"]},
        }
    )
    assert ours["jobs"]["ci-pass"]["steps"] == theirs["jobs"]["ci-pass"]["steps"]
    assert ours["jobs"]["test"]["steps"][-1] == {"run": "bash .ci/run"}


def test_every_pinned_action_is_updated() -> None:
    """Of the root, Dependabot looks at the workflows; of a folder, at what lies right in it."""
    config = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text(encoding="utf-8"))
    (actions,) = (
        update for update in config["updates"] if update["package-ecosystem"] == "github-actions"
    )
    folders = [f"{name.strip('/') or '.github/workflows'}/*.yml" for name in actions["directories"]]
    seen = {path for pattern in folders for path in ROOT.glob(pattern)}
    found = [*(ROOT / ".github").rglob("*.yml"), *(ROOT / "template/.github").rglob("*.yml")]
    pinned = {path for path in found if re.search(r"uses: [^$.]\S+@", path.read_text())}
    assert pinned
    assert pinned <= seen


def test_updates_are_as_careful_as_in_projects(project: Path) -> None:
    ours, theirs = (
        yaml.safe_load((root / ".github/dependabot.yml").read_text()) for root in (ROOT, project)
    )
    for update in (*ours["updates"], *theirs["updates"]):
        assert update["cooldown"] == {"default-days": 7}
        assert update["schedule"] == {"interval": "weekly"}
        assert len(update["groups"]) == 1
    kinds = [{each["package-ecosystem"] for each in file["updates"]} for file in (ours, theirs)]
    assert kinds[1] - kinds[0] == {"docker"}


def test_rulesets_are_what_github_takes() -> None:
    rulesets = rulesets_of(ROOT)
    assert list(rulesets) == ["main", "tags"]
    for ruleset in rulesets.values():
        assert not complaints(CREATE, "requestBody", ruleset)
        assert not complaints(UPDATE, "requestBody", ruleset)


def test_the_version_is_the_newest_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)[0] == project["version"]


def test_the_required_check_is_a_job() -> None:
    rules = json.loads((ROOT / RULESET).read_text(encoding="utf-8"))["rules"]
    (checks,) = (rule for rule in rules if rule["type"] == "required_status_checks")
    (required,) = checks["parameters"]["required_status_checks"]
    assert required["context"] in _workflow("ci")["jobs"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_renders(render: Render, path: Path) -> None:
    answers = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert answers_of(render(**answers)).items() >= answers.items()


def test_every_example_is_run() -> None:
    job = _workflow("examples")["jobs"]["example"]
    assert job["strategy"]["matrix"]["example"] == [path.stem for path in EXAMPLES]
    run = " ".join(step.get("run", "") for step in job["steps"])
    assert re.findall(r"make (\w+)", run) == ["preview", "check", "test", "drill"]
    assert {"schedule", "pull_request", "push"} <= _workflow("examples")[True].keys()


def test_the_examples_differ_in_every_part(render: Render) -> None:
    chosen = [answers_of(render(**yaml.safe_load(path.read_text()))) for path in EXAMPLES]
    for name, values in {"database": DATABASES, "limiter": LIMITERS, "auth": AUTHS}.items():
        assert {answers[name] for answers in chosen} == set(values)
    assert {answers["host"] for answers in chosen} == set(HOSTS)
    assert {answers["team"] for answers in chosen} == {False, True}
    assert {name for answers in chosen for name in answers["providers"]} == set(PROVIDERS)


def test_the_rulesets_are_applied_with_the_projects_script(github: Repository) -> None:
    assert protect(ROOT, github, "check").returncode == 2
    for command in ("plan", "apply", "check"):
        assert protect(ROOT, github, command).returncode == 0
    assert {each["name"] for each in github.rulesets.values()} == rulesets_of(ROOT).keys()


@pytest.mark.parametrize(("title", "code"), [("feat: new", 0), ("new things", 1)])
def test_titles_are_checked_with_the_projects_script(tmp_path: Path, title: str, code: int) -> None:
    (tmp_path / "title").write_text(title)
    assert (
        _run(tmp_path, str(ROOT / "scripts/conventional.py"), "--title", "title").returncode == code
    )


def _workflow(name: str, repository: Path = ROOT) -> dict[Any, Any]:
    path = repository / f".github/workflows/{name}.yml"
    content: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


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
