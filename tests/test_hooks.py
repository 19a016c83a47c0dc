"""The hooks of a project refuse, before there is a commit, what no commit should hold."""

import os
import subprocess
from pathlib import Path

import pytest
from conftest import Render, git
from environments import environment_with
from processes import clean_environment
from projects import requirements_of

pytestmark = pytest.mark.slow

# Made up, and put together here: this very file would be refused as well.
RANDOM = "Zq8LrT5vXw2NcB7mYd4K" + "Hs9GpR6tUa1EfJ3xQz0V"
KEY = f"sk-{RANDOM[:20]}T3Blbk" + f"FJ{RANDOM[20:]}"
MARKERS = "<<<<<<< before updating\none\n=======\nanother\n>>>>>>> after updating\n"
GOOD = '"""One more module."""\n'


@pytest.fixture(scope="session")
def repository(render: Render) -> Path:
    """A project whose hooks are installed, with what it was generated with as its first commit.

    It has as many files as a project can have: none of them may be refused.
    """
    providers = ["openai", "huggingface", "replicate"]
    project = render(providers=providers, database="postgres", limiter="redis")
    (project / ".venv").symlink_to(environment_with(requirements_of(project)))
    git(project, "init", "--quiet", "--initial-branch", "main")
    with (project / ".git/info/exclude").open("a") as excluded:
        excluded.write(".venv\n")  # a link here, which the rule for the folder is not about
    _run(project, ".venv/bin/pre-commit", "install")
    first = _commit(project, "feat: first commit")
    assert first.returncode == 0, first.stdout
    git(project, "tag", "first")
    return project


@pytest.fixture(autouse=True)
def _as_it_was(repository: Path) -> None:
    git(repository, "reset", "--quiet", "--hard", "first")
    git(repository, "clean", "--quiet", "--force", "-d")


@pytest.mark.parametrize(
    ("path", "text", "hook"),
    [
        ("app/more.py", f'{GOOD}\nKEY = "{KEY}"\n', "no secrets"),
        ("app/more.py", f'{GOOD}\nNAME = "hf_{RANDOM[:34]}"\n', "no secrets"),
        ("app/more.py", f'{GOOD}\nNAME = "r8_{RANDOM[:37]}"\n', "no secrets"),
        ("notes.txt", f"OPENAI_API_KEY={KEY}\n", "no secrets"),
        ("notes.txt", f"postgresql://app:{RANDOM}@db.example.com/app\n", "no secrets"),
        ("deploy.pem", f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{RANDOM}\n", "no secrets"),
        ("docs/notes.md", MARKERS, "no conflict markers"),
        ("app/main.py.rej", "--- app/main.py\n", "no rejected hunks"),
        (".env", "PORT=8000\n", "no .env"),
        ("deploy/.env.production", "PORT=8000\n", "no .env"),
        ("app/more.py", f"{GOOD}\nNUMBERS = [ 1,2 ]\n", "format"),
        ("app/more.py", f"{GOOD}\nmixedCase = 1\n", "lint"),
        ("app/more.py", f'{GOOD}\nNUMBER: int = "one"\n', "types"),
    ],
)
def test_a_commit_is_refused(repository: Path, path: str, text: str, hook: str) -> None:
    _write(repository, path, text)
    refused = _commit(repository, "feat: more")
    assert refused.returncode == 1
    assert hook in " ".join(_failed(refused.stdout)), refused.stdout
    assert len(_failed(refused.stdout)) == 1, refused.stdout


@pytest.mark.parametrize("message", ["More", "feat:more", "feature: more"])
def test_a_message_is_refused(repository: Path, message: str) -> None:
    _write(repository, "app/more.py", GOOD)
    refused = _commit(repository, message)
    assert refused.returncode == 1
    assert _failed(refused.stdout) == ["conventional commit"]
    assert "For example: feat(chat): " in refused.stdout


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("app/more.py", GOOD),
        ("notes.txt", f"OPENAI_API_KEY={KEY}  # pragma: allowlist secret\n"),
        (".env.example", "PORT=8000\n"),
    ],
)
def test_what_is_right_is_committed(repository: Path, path: str, text: str) -> None:
    _write(repository, path, text)
    done = _commit(repository, "feat(chat)!: more")
    assert done.returncode == 0, done.stdout
    assert git(repository, "log", "-1", "--format=%s").strip() == "feat(chat)!: more"


def _write(repository: Path, path: str, text: str) -> None:
    file = repository / path
    file.parent.mkdir(exist_ok=True)
    file.write_text(text, encoding="utf-8")
    git(repository, "add", "--force", path)  # whatever is ignored


def _commit(repository: Path, message: str) -> subprocess.CompletedProcess[str]:
    """Commit everything, and what was added beside."""
    git(repository, "add", "--all")
    return _run(repository, "git", "commit", "--message", message)


def _run(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
    own |= {"PRE_COMMIT_HOME": str(repository.with_name(f"{repository.name}-hooks"))}
    return subprocess.run(
        command,
        cwd=repository,
        env=clean_environment() | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _failed(log: str) -> list[str]:
    """Name the hooks that refused."""
    return [
        line.partition("...")[0].removesuffix(".")
        for line in log.splitlines()
        if line.endswith("Failed")
    ]
