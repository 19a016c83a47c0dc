"""`scripts/release.py` of a project, from its commits to the tag and the release on GitHub.

The repository and git-cliff are real; `gh` is a stand-in that checks what it gets.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Render, as_repository, git
from stand_ins import State, install

IMAGE = f"ghcr.io/acme-inc/acme-chat@sha256:{'a' * 64}"
NOTHING = "Nothing to release"


@dataclass(frozen=True)
class Repository:
    """A project on main, and what its releases are."""

    directory: Path
    state: State
    programs: Path

    def commit(self, *messages: str) -> None:
        """Put empty commits on what is checked out."""
        for message in messages:
            git(self.directory, "commit", "--allow-empty", "--quiet", "--message", message)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as the workflow does, with its files for outputs and the summary."""
        files = {name: str(self.state.folder / name) for name in ("GITHUB_OUTPUT", "SUMMARY")}
        for path in files.values():
            Path(path).unlink(missing_ok=True)
        given = {
            "PATH": f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_OUTPUT": files["GITHUB_OUTPUT"],
            "GITHUB_STEP_SUMMARY": files["SUMMARY"],
            "GITHUB_ACTIONS": "true",
            "GITHUB_REF": "refs/heads/main",
            "GH_TOKEN": "made-up",
        }
        return subprocess.run(
            [sys.executable, "-m", "scripts.release", *arguments],
            cwd=self.directory,
            env=os.environ | given | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def plan(self) -> str:
        """Plan, and return the version that the next jobs get."""
        done = self.run("plan")
        assert done.returncode == 0, done.stdout + done.stderr
        return (self.state.folder / "GITHUB_OUTPUT").read_text().strip().removeprefix("version=")

    def publish(self, version: str) -> dict[str, str]:
        """Publish, and return what GitHub got."""
        done = self.run("publish", version, "--image", IMAGE)
        assert done.returncode == 0, done.stdout + done.stderr
        release: dict[str, str] = self.state.get("releases")[version]
        return release

    @property
    def summary(self) -> str:
        """What the last run shows on its page."""
        return (self.state.folder / "SUMMARY").read_text().strip()


@pytest.fixture
def repository(render: Render, tmp_path: Path) -> Repository:
    """A fresh project with its first commit."""
    directory = as_repository(render())
    git(directory, "commit", "--amend", "--quiet", "--message", "feat: first commit")
    state = State(tmp_path / "state")
    state.folder.mkdir()
    state.put("repository", str(directory))
    return Repository(directory, state, install(tmp_path / "bin", state.folder))


@pytest.fixture
def released(repository: Repository) -> Repository:
    """A project whose first version is out."""
    repository.publish(repository.plan())
    return repository


def test_the_first_release(repository: Repository) -> None:
    assert repository.plan() == "v0.1.0"
    assert repository.summary == "## v0.1.0\n\n### Features\n\n- First commit"
    release = repository.publish("v0.1.0")
    assert release["notes"] == f"### Features\n\n- First commit\n\nImage: `{IMAGE}`\n"
    assert release["image"] == f"{IMAGE}\n"
    assert release["commit"] == git(repository.directory, "rev-parse", "HEAD").strip()


@pytest.mark.parametrize(
    ("commits", "version", "notes"),
    [
        (["fix: a leak"], "v0.1.1", "### Fixes\n\n- A leak"),
        (["perf(db): one query less"], "v0.1.1", "### Performance\n\n- **db**: One query less"),
        (
            ["build(deps): bump fastapi"],
            "v0.1.1",
            "### Dependencies\n\n- **deps**: Bump fastapi",
        ),
        (
            ["fix: a leak", "feat(api): notes", "docs: more"],
            "v0.2.0",
            "### Features\n\n- **api**: Notes\n\n### Fixes\n\n- A leak",
        ),
        (
            ["feat: notes", "refactor!: keys have another form"],
            "v1.0.0",
            "### Breaking changes\n\n- Keys have another form\n\n### Features\n\n- Notes",
        ),
        (
            ["fix: keys\n\nBREAKING CHANGE: they have another form"],
            "v1.0.0",
            "### Breaking changes\n\n- Keys: they have another form",
        ),
    ],
    ids=["patch", "faster", "dependencies", "minor", "major", "major by footer"],
)
def test_the_next_version_and_its_notes(
    released: Repository, commits: list[str], version: str, notes: str
) -> None:
    released.commit(*commits)
    assert released.plan() == version
    assert released.summary == f"## {version}\n\n{notes}"
    assert released.publish(version)["notes"] == f"{notes}\n\nImage: `{IMAGE}`\n"
    assert released.plan() == ""


@pytest.mark.parametrize(
    "commits",
    [[], ["docs: more", "chore: less", "ci: faster", "test: one", "style: x"], ["Merge it"]],
    ids=["no commit", "none that a user notices", "none in the form"],
)
def test_nothing_to_release(released: Repository, commits: list[str]) -> None:
    released.commit(*commits)
    assert released.plan() == ""
    assert NOTHING in released.summary
    refused = released.run("publish", "v0.1.1", "--image", IMAGE)
    assert refused.returncode == 1
    assert "now it would be nothing" in refused.stdout
    assert list(released.state.get("releases")) == ["v0.1.0"]


def test_only_main_is_released(repository: Repository) -> None:
    refused = repository.run("plan", GITHUB_REF="refs/heads/another")
    assert refused.returncode == 1
    assert refused.stdout.startswith("::error::Only main is released")


def test_what_was_planned_is_what_is_published(released: Repository) -> None:
    released.commit("fix: a leak")
    assert released.plan() == "v0.1.1"
    released.commit("feat: notes")
    refused = released.run("publish", "v0.1.1", "--image", IMAGE)
    assert refused.returncode == 1
    assert "v0.1.1 was planned, but now it would be v0.2.0" in refused.stdout


def test_a_version_of_another_branch_is_not_taken_again(released: Repository) -> None:
    git(released.directory, "checkout", "--quiet", "-b", "aside")
    released.commit("fix: here only")
    git(released.directory, "tag", "v0.1.1")
    git(released.directory, "checkout", "--quiet", "main")
    released.commit("fix: a leak")
    refused = released.run("plan")
    assert refused.returncode == 1
    assert "v0.1.1 is there, on a commit that is not on main" in refused.stdout


def test_a_history_that_is_cut_off_is_refused(released: Repository, tmp_path: Path) -> None:
    """Without the tags, every release would be the first."""
    git(tmp_path, "clone", "--quiet", "--depth=1", f"file://{released.directory}", "clone")
    clone = Repository(tmp_path / "clone", released.state, released.programs)
    refused = clone.run("plan")
    assert refused.returncode == 1
    assert "fetch-depth: 0" in refused.stdout


@pytest.mark.parametrize("image", ["", "ghcr.io/acme-inc/acme-chat:v0.1.0", f"{IMAGE}0"])
def test_an_image_that_could_change_is_not_published(repository: Repository, image: str) -> None:
    refused = repository.run("publish", "v0.1.0", "--image", image)
    assert refused.returncode == 1
    assert "does not name an image by its digest" in refused.stdout


def test_what_github_refuses_is_told(repository: Repository) -> None:
    refused = repository.run("publish", "v0.1.0", "--image", IMAGE, GH_TOKEN="")
    assert refused.returncode == 1
    assert "::error::gh release create failed: stand-in: gh has no token" in refused.stdout
