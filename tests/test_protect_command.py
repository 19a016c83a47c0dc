"""scripts/protect.py of a project as a command: its JSON, its repository, its files."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import Render, git
from github_server import REPOSITORY, Repository
from protection import applied, lines_of, protect


@pytest.fixture(scope="module")
def project(render: Render) -> Path:
    """Render a project of a team. Tests only read it."""
    return render(team=True)


@pytest.fixture
def protected(project: Path, github: Repository) -> Repository:
    return applied(project, github)


# For programs


@pytest.mark.parametrize("command", ["plan", "apply", "check"])
def test_json_is_one_value_and_the_rest_goes_elsewhere(
    project: Path, protected: Repository, command: str
) -> None:
    equal = json.loads(protect(project, protected, command, "--json").stdout)
    assert equal == {
        "repository": REPOSITORY,
        "status": "equal",
        "rulesets": [
            {"name": "main", "target": "branch", "state": "equal", "differences": []},
            {"name": "tags", "target": "tag", "state": "equal", "differences": []},
        ],
    }
    protected.named("main")["enforcement"] = "evaluate"
    done = protect(project, protected, command, "--json")
    status, state = ("applied",) * 2 if command == "apply" else ("drift", "different")
    result = json.loads(done.stdout)
    assert result["status"] == status
    assert result["rulesets"][0]["state"] == state
    assert result["rulesets"][0]["differences"] == [
        {"setting": "enforcement", "file": "active", "github": "evaluate"}
    ]
    assert lines_of(done.stderr) == ['- enforcement: "evaluate"', '+ enforcement: "active"']


def test_a_failure_is_json_too(project: Path, github: Repository) -> None:
    done = protect(project, github, "check", "--json", token="ghp_expired")
    assert done.returncode == 1
    failure = json.loads(done.stdout)
    assert failure["status"] == "error"
    assert failure["error"] == done.stderr.strip()


# The repository, and the files


@pytest.mark.parametrize(
    "url",
    [
        "git@github.com:acme/chat.git",
        "https://github.com/acme/chat",
        "https://someone:secret@github.com/acme/chat.git",
        "ssh://git@ssh.github.com:443/acme/chat.git",
        "https://github.com/acme/chat/",
    ],
)
def test_the_repository_is_the_one_of_the_remote(
    project: Path, github: Repository, tmp_path: Path, url: str
) -> None:
    clone = Path(shutil.copytree(project, tmp_path / "clone"))
    git(clone, "init", "--quiet")
    git(clone, "remote", "add", "origin", url)
    done = protect(clone, github, GITHUB_REPOSITORY="")
    assert done.stdout.splitlines()[0] == REPOSITORY, done.stderr
    assert "secret" not in done.stdout + done.stderr


def test_without_a_remote_the_repository_is_asked_for(
    project: Path, github: Repository, tmp_path: Path
) -> None:
    clone = Path(shutil.copytree(project, tmp_path / "clone"))
    git(clone, "init", "--quiet")
    done = protect(clone, github, GITHUB_REPOSITORY="")
    assert done.returncode == 1
    assert "Which repository?" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "main.json cannot be read: "),
        ("[]", 'main.json needs "name": "main", a target, an enforcement and rules.'),
        ('{"name": "other", "rules": []}', 'main.json needs "name": "main"'),
        ('{"name": "main", "target": "branch", "rules": []}', "an enforcement"),
        ('{"name": "main", "target": "branch", "enforcement": "active"}', "and rules"),
    ],
)
def test_a_broken_file_is_named(
    project: Path, github: Repository, tmp_path: Path, text: str, said: str
) -> None:
    clone = Path(shutil.copytree(project, tmp_path / "clone"))
    (clone / ".github/rulesets/main.json").write_text(text)
    done = protect(clone, github, "apply")
    assert done.returncode == 1
    assert said in done.stderr
    assert not github.requests


def test_no_file_is_an_error(project: Path, github: Repository, tmp_path: Path) -> None:
    clone = Path(shutil.copytree(project, tmp_path / "clone"))
    shutil.rmtree(clone / ".github/rulesets")
    done = protect(clone, github, "check")
    assert done.returncode == 1
    assert "restore them from git" in done.stderr
