"""Somebody who has a project and its README alone: from `git init` to a first release.

GitHub's side is played by stand-ins: its API by `github_server.py`, its command line by
`stand_ins.py`, its runners by act.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from act import JOBS, NOT_LOCKED, Checkout, act, jobs_of
from conftest import Render, git
from github_server import ADMIN, REPOSITORY, Repository
from processes import clean_environment
from protection import protect, rulesets_of
from stand_ins import State, install

SECTION = re.compile(r"^## Put it on GitHub\n(.*?)^## ", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWNER, NAME = REPOSITORY.split("/")
SECONDS = 60


@dataclass(frozen=True)
class Newcomer:
    """A folder that is no repository yet, and what GitHub remembers."""

    directory: Path
    state: State
    programs: Path
    github: Repository

    def do(self) -> str:
        """Do what the README says under its heading, block by block; return what was printed."""
        readme = (self.directory / "README.md").read_text(encoding="utf-8")
        (section,) = SECTION.findall(readme)
        shell = clean_environment() | {
            "PATH": f"{self.programs}{os.pathsep}{os.environ['PATH']}",
            "GITHUB_API_URL": self.github.url,
            "GIT_CONFIG_GLOBAL": os.environ["GIT_CONFIG_GLOBAL"],
        }
        printed = ""
        for block in BLOCK.findall(section):
            done = subprocess.run(
                ["bash", "-ec", block],
                cwd=self.directory,
                env=shell,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SECONDS,
                check=False,
            )
            printed += done.stdout
            assert done.returncode == 0, f"{block}\n{printed}"
        return printed


@pytest.fixture
def newcomer(render: Render, github: Repository, tmp_path: Path, team: bool) -> Newcomer:
    directory = render(github_owner=OWNER, project_slug=NAME, team=team)
    state = State(tmp_path / "state")
    state.folder.mkdir()
    state.put("token", ADMIN)
    return Newcomer(directory, state, install(tmp_path / "bin", state.folder), github)


@pytest.mark.slow(minutes=3)
@pytest.mark.parametrize("team", [False])
def test_the_first_run_is_green_and_the_first_release_is_out(newcomer: Newcomer) -> None:
    newcomer.do()
    checkout = Checkout(newcomer.directory)
    checkout.on_one_python()
    checkout.drill_in_memory()
    ran = checkout.run(event="push")
    assert ran.code == 0, ran.failures or ran.log
    assert jobs_of(ran) == dict.fromkeys(JOBS, True)
    assert NOT_LOCKED in ran.log
    assert "The image builds, gets ready and stops." in ran.log
    git(newcomer.directory, "push", newcomer.state.get("repository"), "main")
    (workflow,) = newcomer.state.get("started")
    token = {"GITHUB_TOKEN": "made-up-token"}
    ran = act(
        newcomer.directory, "workflow_dispatch", workflow, path=[newcomer.programs], secret=token
    )
    assert ran.code == 0, ran.failures or ran.log
    assert all(ran.jobs.values())
    assert list(newcomer.state.get("releases")) == ["v0.1.0"]
    assert "::notice::production is not set up, so nothing was deployed" in ran.log


@pytest.mark.parametrize("team", [False, True])
def test_the_readme_leads_to_a_protected_main(newcomer: Newcomer, team: bool) -> None:
    printed = newcomer.do()
    hosted = Path(newcomer.state.get("repository"))
    assert git(hosted, "log", "--format=%s", "main").strip() == "feat: first commit"
    ruleset = newcomer.github.named("main")
    assert ruleset["enforcement"] == "active"
    assert ruleset == rulesets_of(newcomer.directory)["main"]
    assert protect(newcomer.directory, newcomer.github, "check").returncode == 0
    squashed = {"squash_merge_commit_title": "PR_TITLE", "squash_merge_commit_message": "PR_BODY"}
    assert newcomer.github.settings == squashed
    assert newcomer.state.get("started") == ["release.yml"]
    assert ("[]" in printed.splitlines()) is team
