"""What holds for every workflow: those of projects, and those of this repository."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render
from protection import complaint_of
from working_tree import ROOT

OTHER = {"database": "postgres", "limiter": "redis", "auth": "basic", "host": "compose"}
REPOSITORIES: dict[str, dict[str, Any] | None] = {
    "this": None,
    "default": {},
    "other": OTHER | {"team": True, "license": "proprietary"},
}
SCHEMAS = {
    "vendor.github-workflows": "workflows/*.yml",
    "vendor.github-actions": "actions/*/action.yml",
    "vendor.dependabot": "dependabot.yml",
}
GITHUB_ACTIONS = 15368  # the application that reports the checks of workflows
USES = re.compile(r"^[ -]*uses: (.*)$", re.MULTILINE)
PINNED = re.compile(r"([\w.-]+/[\w.-]+)[\w./-]*@([0-9a-f]{40}) # (v?\d[\d.]*)")
# A word with a slash in it that ends as files here do.
FILE = re.compile(r"(?<![\w/.:$}*-])((?:[\w.-]+/)+[\w.*-]+\.(?:py|md|toml|json|yml))\b")
# Set while it runs, and by whoever sits at a keyboard: no settings of a repository.
NOT_SETTINGS = {"GITHUB_TOKEN", "SMOKE_WAIT_SECONDS"}


@pytest.fixture(scope="module", params=REPOSITORIES)
def repository(request: pytest.FixtureRequest, render: Render) -> Path:
    """This repository, and projects that differ in what their workflows meet."""
    answers = REPOSITORIES[request.param]
    return ROOT if answers is None else render(**answers)


def _files(repository: Path) -> list[Path]:
    """Find the workflows of a repository, and the actions that they share."""
    patterns = ("workflows/*.yml", "actions/*/action.yml")
    return [path for pattern in patterns for path in (repository / ".github").glob(pattern)]


def _workflows(repository: Path) -> dict[str, dict[str, Any]]:
    """Read the workflows of a repository by their file's name. YAML takes `on` for true."""
    paths = (repository / ".github/workflows").glob("*.yml")
    read = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths}
    assert "ci.yml" in read
    return {
        name: {"on" if key is True else key: value for key, value in workflow.items()}
        for name, workflow in read.items()
    }


def _jobs(repository: Path) -> dict[str, dict[str, Any]]:
    """Read every job of a repository, by its workflow and its name there."""
    return {
        f"{name}: {key}": job
        for name, workflow in _workflows(repository).items()
        for key, job in workflow["jobs"].items()
    }


def _steps(repository: Path) -> list[dict[str, Any]]:
    """Read every step of a repository's jobs and shared actions."""
    actions = (repository / ".github/actions").glob("*/action.yml")
    shared = [yaml.safe_load(path.read_text(encoding="utf-8"))["runs"] for path in actions]
    return [
        step for part in (*_jobs(repository).values(), *shared) for step in part.get("steps", [])
    ]


def _text(*paths: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


# One by one


def test_github_takes_them(repository: Path) -> None:
    for schema, pattern in SCHEMAS.items():
        if paths := [*(repository / ".github").glob(pattern)]:
            assert complaint_of("check-jsonschema", "--builtin-schema", schema, *paths) == ""


def test_they_are_safe(repository: Path) -> None:
    options = ("--offline", "--persona", "pedantic", "--quiet")
    assert complaint_of("zizmor", *options, repository / ".github") == ""


def test_they_are_plain_yaml(repository: Path) -> None:
    rules = ("--strict", "--config-file", ROOT / ".yamllint.yml")
    assert complaint_of("yamllint", *rules, *_files(repository)) == ""


def test_they_have_no_right_but_those_of_a_job(repository: Path) -> None:
    for name, workflow in _workflows(repository).items():
        assert workflow["permissions"] == {}, name
        assert {"group", "cancel-in-progress"} == workflow["concurrency"].keys(), name
    for name, job in _jobs(repository).items():
        assert isinstance(job["permissions"], dict), name


def test_every_job_ends(repository: Path) -> None:
    """A job that calls a workflow has the limits of the jobs in there."""
    for name, job in _jobs(repository).items():
        assert ("timeout-minutes" in job) != ("uses" in job), name


def test_no_checkout_leaves_a_token_behind(repository: Path) -> None:
    steps = _steps(repository)
    checkouts = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_no_text_from_outside_becomes_code(repository: Path) -> None:
    scripts = [step["run"] for step in _steps(repository) if "run" in step]
    assert scripts
    assert not [script for script in scripts if "${{" in script]


def test_every_action_is_pinned_to_one_commit() -> None:
    """Here and in what is emitted, so that one update of an action reaches all of it."""
    folders = (ROOT / ".github", ROOT / "template/.github")
    text = _text(*(path for folder in folders for path in folder.glob("**/*.yml*")))
    pins = [line for line in USES.findall(text) if not line.startswith(("$/", "./"))]
    matches = [PINNED.fullmatch(line) for line in pins]
    assert pins
    assert all(matches), pins
    found = {match.groups() for match in matches if match}
    assert len(found) == len({action for action, *_ in found}), found


# With one another


def test_the_check_of_all_checks_needs_every_other_job(repository: Path) -> None:
    jobs = _workflows(repository)["ci.yml"]["jobs"]
    assert sorted(jobs["ci-pass"]["needs"]) == sorted(jobs.keys() - {"ci-pass"})
    assert jobs["ci-pass"]["if"] == "always()"
    (step,) = jobs["ci-pass"]["steps"]
    assert step["with"] == {"jobs": "${{ toJSON(needs) }}"}


def test_required_checks_are_jobs(repository: Path) -> None:
    """A required check that no job reports would keep every change out for ever."""
    ruleset = repository / ".github/rulesets/main.json"
    if not ruleset.exists():
        pytest.skip("Without rulesets, nothing is required.")
    rules = json.loads(ruleset.read_text(encoding="utf-8"))["rules"]
    (required,) = (rule for rule in rules if rule["type"] == "required_status_checks")
    checks = required["parameters"]["required_status_checks"]
    assert {check["integration_id"] for check in checks} == {GITHUB_ACTIONS}
    names = [check["context"] for check in checks]
    assert "ci-pass" in names
    assert {*names} <= {*_checks(repository)}


def test_no_two_checks_of_a_pull_request_have_one_name(repository: Path) -> None:
    """GitHub would take the one for the other."""
    names = list(_checks(repository))
    assert sorted(names) == sorted(set(names))


def _checks(repository: Path) -> Iterator[str]:
    """Name the checks that pull requests get."""
    for workflow in _workflows(repository).values():
        if "pull_request" in workflow["on"]:
            yield from (job.get("name", key) for key, job in workflow["jobs"].items())


# With the rest of the repository


def test_every_python_is_tested(repository: Path) -> None:
    pyproject = tomllib.loads(_text(repository / "pyproject.toml"))
    matrices = [job.get("strategy", {}) for job in _jobs(repository).values()]
    (tested,) = (
        matrix["matrix"]["python"] for matrix in matrices if "python" in matrix.get("matrix", {})
    )
    assert pyproject["project"]["requires-python"] == f">={tested[0]}"
    used = re.findall(r'(?:python-version|default): "(3\.\d+)"', _text(*_files(repository)))
    assert used
    assert {*used} <= {*tested}


def test_checks_use_what_the_image_does(repository: Path) -> None:
    if not (repository / "Dockerfile").exists():
        pytest.skip("It has no image.")
    dockerfile = _text(repository / "Dockerfile")
    setup = _text(repository / ".github/actions/setup/action.yml")
    (python,) = set(re.findall(r"^FROM python:([\d.]+)-", dockerfile, re.MULTILINE))
    assert re.findall(r'default: "(.*)"', setup) == [python]
    assert re.findall(r'version: "(.*)"', setup) == re.findall(r"uv==(\S+)", dockerfile)


def test_every_file_that_they_name_exists(repository: Path) -> None:
    text = _text(*_files(repository))
    named = {*FILE.findall(text)}
    named |= {f"{name.replace('.', '/')}.py" for name in re.findall(r"-m ([\w.]+)", text)}
    named |= {use.removeprefix("$/") for use in USES.findall(text) if use.startswith("$/")}
    assert named or repository == ROOT
    assert not [name for name in named if not any(repository.glob(name))]


def test_what_is_updated_exists(repository: Path) -> None:
    path = repository / ".github/dependabot.yml"
    if not path.exists():
        pytest.skip("Nothing is updated.")
    for update in yaml.safe_load(_text(path))["updates"]:
        for directory in update.get("directories") or [update["directory"]]:
            assert directory == "/" or any(repository.glob(directory[1:])), update


def test_every_verb_that_they_run_exists(repository: Path) -> None:
    makefile = _text(repository / "Makefile")
    verbs = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    scripts = "\n".join(step.get("run", "") for step in _steps(repository))
    run = re.findall(r"^make ([a-z-]+)", scripts, re.MULTILINE)
    assert run or repository == ROOT
    assert {*run} <= {*verbs}


def test_every_setting_is_documented_and_every_documented_one_is_used(repository: Path) -> None:
    text = _text(*_files(repository), *repository.glob("scripts/*.py"))
    used = re.findall(r"(?:secrets|vars)[.]([A-Z_]+)|variable\([\"'](\w+)", text)
    pages = _text(*repository.glob("*.md"), *repository.glob("docs/**/*.md"))
    rows = re.findall(r"^ *\| `([A-Z_]+)` \| (?:secret|variable) \|", pages, re.MULTILINE)
    assert {"".join(names) for names in used} - NOT_SETTINGS == {*rows}
    assert len(rows) == len({*rows})
