"""The weekly workflow protect.yml of a project, step by step as a runner does it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render
from github_server import REPOSITORY, WORKFLOW, Repository, problem
from protection import applied, environment, stand_in_for_gh
from working_tree import ROOT

# A stand-in for GitHub's command line that keeps issues in a file, and checks how it is called.
ISSUES_GH = """
import json, os, pathlib, sys
kind, verb, *words = sys.argv[1:]
state = pathlib.Path(os.environ["GH_ISSUES"])
issues = json.loads(state.read_text()) if state.exists() else []
options = dict(zip(words, words[1:]))
assert kind == "issue" and os.environ["GH_TOKEN"] and os.environ["GH_REPO"]
if verb == "list":
    assert options["--state"] == "open" and options["--app"] == "github-actions"
    assert "env.TITLE" in options["--jq"]
    for issue in issues:
        if issue["open"] and issue["title"] == os.environ["TITLE"]:
            print(issue["number"])
elif verb == "create":
    body = pathlib.Path(options["--body-file"]).read_text()
    number, title = len(issues) + 1, options["--title"]
    issues.append({"number": number, "title": title, "open": True, "said": [body]})
elif verb == "comment":
    body = pathlib.Path(options["--body-file"]).read_text()
    issues[int(words[0]) - 1]["said"].append(body)
else:
    sys.exit(f"gh issue {verb}?")
state.write_text(json.dumps(issues))
"""


class Weekly:
    """The job of protect.yml, as a runner does it."""

    def __init__(self, project: Path, github: Repository, scratch: Path) -> None:
        path = project / ".github/workflows/protect.yml"
        (job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
        self.steps = [step for step in job["steps"] if "run" in step]
        self.project = project
        self.scratch = scratch
        self.summary = scratch / "summary"
        self.environment = environment(github, "") | stand_in_for_gh(scratch, ISSUES_GH)
        self.environment |= {
            "GITHUB_OUTPUT": str(scratch / "output"),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GH_ISSUES": str(scratch / "issues"),
        }

    def run(self) -> tuple[int, str]:
        """Do the steps whose conditions hold; return the exit code and what was printed."""
        compare, tell = self.steps
        (self.scratch / "output").write_text("")
        done = self._step(compare)
        output = (self.scratch / "output").read_text().splitlines()
        assert tell["if"] == "steps.compare.outputs.status == 'drift'"
        if done.returncode or "status=drift" not in output:
            return done.returncode, done.stdout
        return self._step(tell).returncode, done.stdout

    def _step(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        expressions = {
            "${{ github.token }}": WORKFLOW,
            "${{ github.repository }}": REPOSITORY,
        }
        given = {name: expressions.get(value, value) for name, value in step["env"].items()}
        # How GitHub runs a step that names no shell.
        return subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=self.project,
            env=self.environment | given,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def issues(self) -> list[dict[str, Any]]:
        state = self.scratch / "issues"
        issues: list[dict[str, Any]] = json.loads(state.read_text()) if state.exists() else []
        return issues


@pytest.fixture
def weekly(render: Render, github: Repository, tmp_path: Path) -> Weekly:
    return Weekly(render(), github, tmp_path)


def test_no_drift_opens_no_issue(weekly: Weekly, github: Repository) -> None:
    applied(weekly.project, github)
    assert weekly.run()[0] == 0
    assert not weekly.issues
    assert "Branch protection: equal" in weekly.summary.read_text()


def test_drift_opens_one_issue_and_then_adds_to_it(weekly: Weekly, github: Repository) -> None:
    applied(weekly.project, github)
    github.named("main")["enforcement"] = "disabled"
    assert [weekly.run()[0], weekly.run()[0]] == [0, 0]
    (issue,) = weekly.issues
    assert issue["title"] == "Branch protection has drifted"
    assert len(issue["said"]) == 2
    for said in issue["said"]:
        assert '\n- enforcement: "disabled"\n+ enforcement: "active"\n' in said
        assert "python3 scripts/protect.py apply" in said
        assert WORKFLOW not in said


def test_an_issue_that_was_closed_is_not_opened_again(weekly: Weekly) -> None:
    state = weekly.scratch / "issues"
    closed = {"number": 1, "title": "Branch protection has drifted", "open": False, "said": []}
    state.write_text(json.dumps([closed]))
    assert weekly.run()[0] == 0
    assert [issue["open"] for issue in weekly.issues] == [False, True]


def test_a_private_repository_without_a_plan_gets_a_notice(
    weekly: Weekly, github: Repository
) -> None:
    github.is_private, github.has_plan = True, False
    code, printed = weekly.run()
    assert code == 0
    assert "::notice::GitHub protects a private repository only under a paid plan" in printed
    assert not weekly.issues


def test_a_comparison_that_failed_fails_the_run(weekly: Weekly, github: Repository) -> None:
    github.faults = [problem(418, "short and stout")]
    code, printed = weekly.run()
    assert code == 1
    assert "short and stout" in printed
    assert not weekly.issues


def test_a_script_that_broke_fails_the_run(weekly: Weekly) -> None:
    (weekly.project / "scripts/protect.py").write_text("raise SystemExit(2)\n")
    assert weekly.run()[0] != 0
    assert not weekly.issues


def test_the_workflow_may_do_little() -> None:
    path = ROOT / "template/.github/workflows/protect.yml"
    (job,) = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"].values()
    assert job["permissions"] == {"contents": "read", "issues": "write"}
