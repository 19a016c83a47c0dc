"""What a project's checks promise one by one, beside what holds for every workflow."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from combinations import Combination
from conftest import Render
from working_tree import ROOT

TITLES = {
    "feat: keys expire": True,
    "fix(chat): a stream ends when its client has gone": True,
    "feat!: keys have to be made anew": True,
    "refactor(gateway/ledger)!: one path": True,
    "build(deps): bump the python group with 3 updates": True,
    "feat: keys expire\n\nUpdate README": True,
    "Update README": False,
    "Feat: keys expire": False,
    "feature: keys expire": False,
    "feat:keys expire": False,
    "feat: ": False,
    "feat(): keys expire": False,
    "wip\n\nfeat: keys expire": False,
    "": False,
}
# Git writes these on branches; on main, nothing would be released for them.
BY_GIT = [
    "Merge branch 'main' into aside",
    'Revert "feat: keys expire"',
    "fixup! feat: keys expire",
]


@pytest.fixture(scope="module")
def project(render: Render) -> Path:
    """Render a project. Tests only read it."""
    return render()


def _jobs(project: Path, workflow: str) -> dict[str, dict[str, Any]]:
    text = (project / ".github/workflows" / workflow).read_text(encoding="utf-8")
    jobs: dict[str, dict[str, Any]] = yaml.safe_load(text)["jobs"]
    return jobs


def _steps(project: Path) -> list[dict[str, Any]]:
    """Read every step of the project's workflows and shared actions."""
    github = project / ".github"
    jobs = [
        job for path in github.glob("workflows/*") for job in _jobs(project, path.name).values()
    ]
    shared = [yaml.safe_load(path.read_text())["runs"] for path in github.glob("actions/*/*.yml")]
    return [step for part in (*jobs, *shared) for step in part.get("steps", [])]


def test_no_answer_changes_a_workflow(trees: dict[Combination, Path]) -> None:
    """So what is seen of them in one project holds for all; where they differ is what they run."""
    seen = {
        tuple(
            (path.name, path.read_text()) for path in sorted((tree / ".github/workflows").iterdir())
        )
        for tree in trees.values()
    }
    assert len(seen) == 1


def test_actions_get_inputs_that_they_have(project: Path) -> None:
    """As far as something stands in for them, as act passes over an input that is misspelt."""
    checked = 0
    for step in _steps(project):
        name = re.split("[/@]", step.get("uses", "") + "//")[1]
        if name and (path := ROOT / "tests/actions" / name / "action.yml").exists():
            inputs = yaml.safe_load(path.read_text(encoding="utf-8")).get("inputs", {})
            required = {key for key, about in inputs.items() if about.get("required")}
            assert required <= step.get("with", {}).keys() <= inputs.keys(), step
            checked += 1
    assert checked


def test_a_pipe_fails_with_its_first_command(project: Path) -> None:
    """In a shell that is named: GitHub's default takes the exit code of the last command."""
    piped = [step for step in _steps(project) if "| tee" in step.get("run", "")]
    assert piped
    assert {step.get("shell") for step in piped} == {"bash"}


def test_results_are_in_the_summary_whatever_came_of_them(project: Path) -> None:
    summed_up = []
    for name, job in _jobs(project, "ci.yml").items():
        written = re.findall(r'tee "(\S+)"', "\n".join(map(str, job["steps"])))
        for step in (step for step in job["steps"] if "GITHUB_STEP_SUMMARY" in str(step)):
            assert step["if"] == "always()"
            assert re.findall(r'"(\$RUNNER_TEMP/\S+)"', step["run"]) == written
            summed_up.append(name)
    assert summed_up == ["tests", "coverage", "drill"]


def test_no_job_of_ci_may_be_left_out(project: Path) -> None:
    conditional = [name for name, job in _jobs(project, "ci.yml").items() if "if" in job]
    assert conditional == ["ci-pass"]


def test_what_a_job_reads_of_another_is_there(project: Path) -> None:
    for path in (project / ".github/workflows").iterdir():
        jobs = _jobs(project, path.name)
        for job in jobs.values():
            for name, output in re.findall(r"\bneeds\.([\w-]+)\.outputs\.([\w-]+)", str(job)):
                needs = job["needs"]
                assert name in ([needs] if isinstance(needs, str) else needs)
                assert output in _outputs(project, jobs[name])


def test_updates_come_in_groups_once_a_week_after_a_week(project: Path) -> None:
    updates = yaml.safe_load((project / ".github/dependabot.yml").read_text())["updates"]
    assert [update["package-ecosystem"] for update in updates] == ["uv", "github-actions", "docker"]
    for update in updates:
        assert update["schedule"] == {"interval": "weekly"}
        assert update["cooldown"] == {"default-days": 7}
        assert [group["patterns"] for group in update["groups"].values()] == [["*"]]


@pytest.mark.parametrize(
    ("private", "bought", "scanned"),
    [("false", "", True), ("true", "", False), ("true", "true", True), ("true", "false", False)],
)
def test_what_a_plan_has_not_is_skipped_with_a_notice(
    project: Path, tmp_path: Path, private: str, bought: str, scanned: bool
) -> None:
    jobs = _jobs(project, "security.yml")
    _program(tmp_path / "gh", f'test "$*" = "api repos/acme/chat --jq .private" && echo {private}')
    (step,) = jobs["plan"]["steps"]
    said = _run_step(step, tmp_path, CODE_SECURITY=bought, GITHUB_REPOSITORY="acme/chat")
    assert (tmp_path / "output").read_text() == ("scans=true\n" if scanned else "")
    assert ("::notice" in said) != scanned
    scans = "needs.plan.outputs.scans == 'true'"
    waiting = {name for name, job in jobs.items() if scans in job.get("if", "")}
    assert waiting == {"codeql", "dependencies"}


def test_what_is_not_known_of_a_plan_is_an_error(project: Path, tmp_path: Path) -> None:
    """Else a public repository would be taken for a private one, and never be scanned."""
    (step,) = _jobs(project, "security.yml")["plan"]["steps"]
    _program(tmp_path / "gh", "exit 1")
    with pytest.raises(subprocess.CalledProcessError):
        _run_step(step, tmp_path, CODE_SECURITY="", GITHUB_REPOSITORY="acme/chat")


@pytest.mark.parametrize(("message", "good"), TITLES.items(), ids=str)
@pytest.mark.parametrize("options", [[], ["--title"]], ids=["message", "title"])
def test_a_first_line_says_what_changed(
    tmp_path: Path, message: str, good: bool, options: list[str]
) -> None:
    assert _is_conventional(tmp_path, message, *options) == good


@pytest.mark.parametrize("message", BY_GIT)
def test_what_git_writes_is_good_for_a_branch_alone(tmp_path: Path, message: str) -> None:
    assert _is_conventional(tmp_path, message)
    assert not _is_conventional(tmp_path, message, "--title")


def test_a_title_is_held_to_what_main_asks_for(project: Path) -> None:
    (_, step) = _jobs(project, "pr.yml")["title"]["steps"]
    assert "scripts/conventional.py --title " in step["run"]


def _outputs(project: Path, job: dict[str, Any]) -> set[str]:
    """Name what a job gives to others, or what the workflow does that it calls."""
    if "uses" not in job:
        return set(job["outputs"])
    called = yaml.safe_load((project / job["uses"].removeprefix("$/")).read_text(encoding="utf-8"))
    return set(called[True]["workflow_call"]["outputs"])  # YAML takes `on` for true


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _run_step(step: dict[str, Any], directory: Path, **given: str) -> str:
    """Run a step as GitHub does, and return what it printed."""
    output = directory / "output"
    output.touch()
    path = f"{directory}:{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-e", "-c", step["run"]],
        cwd=directory,
        env={"PATH": path, "GITHUB_OUTPUT": str(output), **given},
        check=True,
        capture_output=True,
        text=True,
    ).stdout


def _is_conventional(directory: Path, message: str, *options: str) -> bool:
    (directory / "message").write_text(message, encoding="utf-8")
    script = ROOT / "template/scripts/conventional.py"
    done = subprocess.run(
        [sys.executable, script, *options, "message"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ("Types: build, chore, ci, docs, feat" in done.stdout) == bool(done.returncode)
    return done.returncode == 0
