"""One click on `release.yml` of this repository, from commits to the tag and the release.

The scripts, the workflow and git-cliff are the real ones; the history is made up, and GitHub's
command line is a stand-in that makes the tag.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from act import Ran, act
from conftest import git
from protection import stand_in_for_gh
from working_tree import ROOT

# What a release reads. A clone of this repository has this, and a history of its own.
READ = ("cliff.toml", "pyproject.toml", "scripts/release.py", ".github/workflows/release.yml")
HEAD = "# Changelog\n\n## [Unreleased]\n\n"
FIRST, SECOND = "## [0.1.0]\n\n- All of it.\n", "## [0.2.0]\n\n- Something new.\n\n"

GH = """
import json, os, subprocess, sys
release, create, version, target, commit, *rest = sys.argv[1:]
assert os.environ.get("GH_TOKEN"), "gh has no token"
assert [release, create, target] == ["release", "create", "--target"], sys.argv
assert rest == ["--title", version, "--notes-file", "-"], rest
subprocess.run(["git", "tag", version, commit], cwd={directory!r}, check=True)
with open({log!r}, "w", encoding="utf-8") as file:
    json.dump({{"version": version, "commit": commit, "notes": sys.stdin.read()}}, file)
"""


@dataclass(frozen=True)
class Scratch:
    """A repository that is released, and a folder beside it for what GitHub gets."""

    directory: Path
    beside: Path

    def commit(self, *messages: str, changelog: str = "") -> None:
        """Put commits on what is checked out, the last one with a changelog of these sections."""
        if changelog:
            self.write("CHANGELOG.md", HEAD + changelog)
        for message in messages:
            git(self.directory, "add", "--all")
            git(self.directory, "commit", "--quiet", "--allow-empty", "--message", message)

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def record(self, **releases: str) -> None:
        """Enter releases in the file from which updates are tested."""
        lines = [f'"{name}" = "{commit}"\n' for name, commit in releases.items()]
        self.write("tests/releases.toml", "".join(["[releases]\n", *lines]))

    def head(self) -> str:
        return git(self.directory, "rev-parse", "HEAD").strip()

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as the workflow does."""
        given = os.environ | self.programs | {"GH_TOKEN": "made-up", "GITHUB_ACTIONS": "true"}
        return subprocess.run(
            [sys.executable, "scripts/release.py", *arguments],
            cwd=self.directory,
            env=given | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def programs(self) -> dict[str, str]:
        """The path, with git-cliff and the stand-in for GitHub's command line in it."""
        gh = GH.format(directory=str(self.directory), log=str(self.beside / "release.json"))
        path = stand_in_for_gh(self.beside, gh)["PATH"]
        return {"PATH": f"{self.beside}:{Path(sys.executable).parent}:{path}"}

    def planned(self) -> str:
        """Plan, and return the version that the next job gets."""
        output = self.beside / "output"
        output.write_text("")
        done = self.run("plan", GITHUB_OUTPUT=str(output))
        assert done.returncode == 0, done.stdout + done.stderr
        return output.read_text().strip().removeprefix("version=")

    def refusal(self, *arguments: str) -> str:
        """Run the script, which must refuse, and return why. GitHub hears nothing of it."""
        done = self.run(*arguments)
        assert done.returncode == 1, done.stdout + done.stderr
        assert not self.released
        return done.stdout

    @property
    def released(self) -> dict[str, str]:
        """What GitHub got last, if anything."""
        path = self.beside / "release.json"
        got: dict[str, str] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return got


@pytest.fixture
def unreleased(tmp_path: Path) -> Scratch:
    """This repository's own rules, before the first release."""
    directory, beside = tmp_path / "scratch", tmp_path / "beside"
    shutil.copytree(ROOT / "template/scripts", directory / "template/scripts")
    for name in READ:
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, directory / name)
    beside.mkdir()
    git(directory, "init", "--quiet", "--initial-branch", "main")
    scratch = Scratch(directory, beside)
    scratch.record()
    scratch.commit("feat: the first", changelog=FIRST)
    return scratch


@pytest.fixture
def scratch(unreleased: Scratch) -> Scratch:
    """Its first version is released, and entered."""
    git(unreleased.directory, "tag", "v0.1.0")
    unreleased.record(**{"0.1.0": unreleased.head()})
    unreleased.commit("test: updates start from 0.1.0")
    return unreleased


def test_the_first_release(unreleased: Scratch) -> None:
    assert unreleased.planned() == "v0.1.0"
    done = unreleased.run("publish", "v0.1.0")
    assert done.returncode == 0, done.stdout
    notes = "### Features\n\n- The first"
    expected = {"version": "v0.1.0", "commit": unreleased.head(), "notes": notes}
    assert unreleased.released == expected
    assert git(unreleased.directory, "rev-parse", "v0.1.0").strip() == unreleased.head()
    assert unreleased.planned() == ""


@pytest.mark.parametrize(
    ("messages", "version"),
    [
        (["fix: it works"], "v0.1.1"),
        (["build(deps): bump copier"], "v0.1.1"),
        (["fix: it works", "feat: it is new"], "v0.2.0"),
        (["feat!: projects need a hand"], "v1.0.0"),
        (["docs: it is told", "test: it holds", "chore: tidy"], ""),
        ([], ""),
    ],
    ids=["patch", "dependencies", "minor", "major", "nothing that users notice", "no commit"],
)
def test_the_version_comes_from_the_commits(
    scratch: Scratch, messages: list[str], version: str
) -> None:
    scratch.commit(*messages)
    assert scratch.planned() == version


@pytest.mark.parametrize(
    "changelog",
    [
        FIRST,
        "- Something new.\n\n" + FIRST,
        "- Left behind.\n\n" + SECOND + FIRST,
        "## [0.2.0]\n\n" + FIRST,
        FIRST + "\n" + SECOND,
        SECOND.replace("0.2.0", "0.2.01") + FIRST,
    ],
    ids=["nothing", "unreleased", "in part", "a title", "at the end", "another version"],
)
def test_a_release_is_written_about_first(scratch: Scratch, changelog: str) -> None:
    scratch.commit("feat: it is new", changelog=changelog)
    assert scratch.planned() == "v0.2.0"
    assert "::notice::CHANGELOG.md: move all" in scratch.run("plan").stdout
    assert "::error::CHANGELOG.md: move all" in scratch.refusal("publish", "v0.2.0")


def test_what_was_planned_is_what_is_published(scratch: Scratch) -> None:
    scratch.commit("feat: it is new", changelog=SECOND + FIRST)
    assert "::notice::" not in scratch.run("plan").stdout
    assert "v0.1.1 is not what would be released now" in scratch.refusal("publish", "v0.1.1")
    assert scratch.run("publish", "v0.2.0").returncode == 0
    assert scratch.released["notes"] == "### Features\n\n- It is new"


@pytest.mark.parametrize("command", [["plan"], ["publish", "v0.1.0"]], ids=["plan", "publish"])
def test_a_release_without_its_tag_is_not_made_anew(scratch: Scratch, command: list[str]) -> None:
    """Without the tags of earlier releases, the next one would be the first."""
    git(scratch.directory, "tag", "--delete", "v0.1.0")
    git(scratch.directory, "tag", "0.1.0", "HEAD~1")
    advice = scratch.refusal(*command)
    commands = advice.split("has no tag: ")[1].split(" && git push")[0]
    git(scratch.directory, *commands.split()[1:])
    assert scratch.planned() == ""


def test_a_tag_that_has_moved_is_told(scratch: Scratch) -> None:
    git(scratch.directory, "tag", "--force", "v0.1.0", "HEAD")
    assert "v0.1.0 is not on the commit that tests/releases.toml" in scratch.refusal("plan")


@pytest.mark.parametrize(
    ("ref", "reason"),
    [("refs/heads/main", "fetch-depth: 0"), ("refs/heads/another", "Only main is released")],
)
def test_only_the_whole_of_main_is_released(scratch: Scratch, ref: str, reason: str) -> None:
    clone = scratch.beside / "clone"
    git(scratch.beside, "clone", "--quiet", "--depth=1", f"file://{scratch.directory}", str(clone))
    done = Scratch(clone, scratch.beside).run("plan", GITHUB_REF=ref)
    assert done.returncode == 1
    assert reason in done.stdout


# The workflow


def click(scratch: Scratch, **inputs: str) -> Ran:
    return act(
        scratch.directory,
        "workflow_dispatch",
        "release.yml",
        path=[scratch.beside],
        secret={"GITHUB_TOKEN": "made-up"},
        input=inputs,
    )


@pytest.mark.slow
def test_a_release_is_one_click(scratch: Scratch) -> None:
    assert scratch.programs
    scratch.commit("feat: it is new", changelog=SECOND + FIRST)
    rehearsed = click(scratch, dry_run="true")
    assert (rehearsed.code, rehearsed.jobs) == (0, {"plan": True}), rehearsed.log
    assert not scratch.released
    ran = click(scratch)
    assert (ran.code, ran.jobs) == (0, {"plan": True, "publish": True}), ran.log
    assert (scratch.released["version"], scratch.released["commit"]) == ("v0.2.0", scratch.head())
    scratch.commit("docs: it is told")
    again = click(scratch)
    assert (again.code, again.jobs) == (0, {"plan": True}), again.log
