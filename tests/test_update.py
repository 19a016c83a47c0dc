"""A project follows its template: from every release, over every switch, losing no edit."""

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import copier
import pytest
import yaml
from conftest import BASE_ANSWERS, git
from environments import environment_with
from processes import clean_environment
from projects import requirements_of
from working_tree import ROOT, copy_template

RELEASED = tomllib.loads((ROOT / "tests/releases.toml").read_text(encoding="utf-8"))
RELEASES: dict[str, str] = RELEASED["releases"]
WORKING_TREE = "v999.0"  # later than any release

ANSWER_SETS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "all-but-defaults": {
        "project_description": 'It says "größe", {{ braces }} and \\ backslashes.',
        "providers": ["huggingface", "replicate"],
        "database": "postgres",
        "limiter": "redis",
        "auth": "basic",
        "host": "compose",
        "license": "Apache-2.0",
    },
    "mixed": {"providers": ["openai", "replicate"], "limiter": "redis", "license": "proprietary"},
}

SWITCHES: dict[str, dict[str, Any]] = {
    "database": {"database": "postgres"},
    "database-with-two-roles": {"database": "supabase"},
    "limiter": {"limiter": "redis"},
    "auth": {"auth": "oauth"},
    "host": {"host": "compose"},
    "more-providers": {"providers": ["openai", "huggingface", "replicate"]},
    "no-license": {"license": "proprietary"},
    "all": ANSWER_SETS["all-but-defaults"] | {"team": True},
}

# A file's content, and whether it may be executed, by path.
Tree = dict[str, tuple[bytes, bool]]


def tree_of(folder: Path) -> Tree:
    """Read the files outside `.git`."""
    paths = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        relative.as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for relative, path in paths.items()
        if ".git" not in relative.parts
    }


def commit_all(folder: Path, message: str, *, tag: str | None = None) -> None:
    git(folder, "add", "--all", "--force")
    git(folder, "commit", "--quiet", "--message", message)
    if tag:
        git(folder, "tag", tag)


def copy(template: Path, project: Path, *, version: str | None = None, **answers: Any) -> Path:
    """Generate a project the way its user does, as the first commit of a repository."""
    data = BASE_ANSWERS | answers
    copier.run_copy(str(template), project, data=data, defaults=True, quiet=True, vcs_ref=version)
    git(project, "init", "--quiet", "--initial-branch", "main")
    commit_all(project, "Generate")
    return project


# A template that evolves, and a project of its first version

NUMBERED = "".join(f"line {number}\n" for number in range(20))
NEW_MIGRATION = "gateway/migrations/versions/0099_new.py"
IMAGE, NEW_IMAGE, OWN_IMAGE = b"\0image", b"\0new image", b"\0own image"


@pytest.fixture(scope="module")
def evolution(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Let a template evolve: version 2.0 changes, moves and deletes some files of 1.0.

    It has what an update needs: without the service's rooms it is rendered in a moment.
    """
    repository = copy_template(tmp_path_factory.mktemp("evolution"))
    for room in ("app", "docs", "drill", "gateway", "tests"):
        shutil.rmtree(repository / "template" / room)
    git(repository, "init", "--quiet", "--initial-branch", "main")
    add_first_version(repository / "template")
    commit_all(repository, "One", tag="1.0")
    make_second_version(repository / "template")
    commit_all(repository, "Two", tag="2.0")
    return repository


def add_first_version(template: Path) -> None:
    for name in ("changed", "deleted", "moved", "kept"):
        (template / f"{name}.txt").write_text(f"{name}\n{NUMBERED}")
    for option in ("railway", "compose"):  # as similar as two options' files can be
        name = f"{{% if host_{option} %}}{option}_notes{{% endif %}}.md"
        (template / name).write_text(f"{option}\n{NUMBERED}")
    (template / "image.bin").write_bytes(IMAGE)
    (template / "gateway").mkdir()
    (template / "gateway/ids.py").write_text("THEIRS = 1\n")


def make_second_version(template: Path) -> None:
    (template / "changed.txt").write_text(f"changed by the template\n{NUMBERED}")
    (template / "deleted.txt").unlink()
    (template / "moved.txt").rename(template / "elsewhere.txt")
    (template / "added.txt").write_text("new in the template\n")
    (template / NEW_MIGRATION).parent.mkdir(parents=True)
    (template / NEW_MIGRATION).write_text('revision = "0099"\n')
    (template / "image.bin").write_bytes(NEW_IMAGE)


@pytest.fixture(scope="module")
def first_version(evolution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(evolution, tmp_path_factory.mktemp("first_version"), version="1.0")


@pytest.fixture
def project(first_version: Path, tmp_path: Path) -> Path:
    """Copy an untouched project of version 1.0, which is all committed."""
    return Path(shutil.copytree(first_version, tmp_path / "project"))


# `copier update`


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clone this repository, tag its releases, and release the working tree as the last one."""
    clone = tmp_path_factory.mktemp("released")
    git(clone, "clone", "--quiet", "--no-tags", str(ROOT), ".")
    for version, commit in RELEASES.items():
        try:
            git(clone, "tag", f"v{version}", commit)
        except subprocess.CalledProcessError:
            pytest.fail(f"This clone lacks the commit of {version}: git fetch --unshallow")
    git(clone, "rm", "--quiet", "-r", "--ignore-unmatch", ".")
    copy_template(clone)
    commit_all(clone, "The working tree", tag=WORKING_TREE)
    return clone


def test_every_released_version_names_its_commit() -> None:
    """All versions of the changelog; the newest may be the commit that is being made."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, *older = re.findall(r"^## \[(\d[^\]]*)\]", changelog, re.MULTILINE)
    assert list(RELEASES) in ([*reversed(older)], [*reversed(older), newest])


@pytest.mark.slow
@pytest.mark.parametrize("answers", ANSWER_SETS.values(), ids=ANSWER_SETS)
@pytest.mark.parametrize("version", RELEASES)
def test_project_of_any_release_becomes_a_new_one(
    version: str, answers: dict[str, Any], released: Path, tmp_path: Path
) -> None:
    project = copy(released, tmp_path / "project", version=f"v{version}", **answers)
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)
    assert tree_of(project) == tree_of(copy(released, tmp_path / "fresh", **answers))


OWN_MIGRATION = """\
import sqlalchemy as sa
from alembic import op

revision = "4ab2c4f1d5e6"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table("notes", sa.Column("text", sa.Text))
    op.execute("INSERT INTO notes VALUES ('kept')")


def downgrade() -> None:
    op.drop_table("notes")
"""


@pytest.mark.slow(minutes=0.5)
def test_a_migration_of_the_owners_moves_into_their_line_and_stays_applied(
    released: Path, tmp_path: Path
) -> None:
    """From the last release with one line: `migrate` asks for the move."""
    project = copy(released, tmp_path / "project", version="v0.2.0")
    python = environment_with(requirements_of(copy(released, tmp_path / "fresh"))) / "bin/python"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        environment = clean_environment() | {"SECRET_KEY": "s" * 43}
        command = [str(python), "-m", *words]
        return subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=False
        )

    path = "migrations/versions/4ab2c4f1d5e6_notes.py"
    (project / path).write_text(OWN_MIGRATION)
    commit_all(project, "Notes")
    assert run("app", "migrate").returncode == 0
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)
    commit_all(project, "Update")

    refused = run("app", "migrate")
    assert refused.returncode == 1
    assert "python -m scripts.move_migrations" in refused.stderr
    moved = run("scripts.move_migrations")
    assert moved.returncode == 0, moved.stderr
    assert not (project / path).exists()
    assert (project / "app" / path).is_file()

    migrated = run("app", "migrate", "--json")
    assert migrated.returncode == 0, migrated.stderr
    assert "4ab2c4f1d5e6" not in json.loads(migrated.stdout)
    assert json.loads(run("app", "migrate", "--json").stdout) == []
    (database,) = project.glob("**/*.db")
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT text FROM notes").fetchall() == [("kept",)]


UPDATER = ("update.py", "merge.py", "scratch.py")


@pytest.mark.slow
def test_edits_go_along_with_files_that_moved(released: Path, tmp_path: Path) -> None:
    """From a release before the move, by the new updater: docs/how-to/update.md says so."""
    project = copy(released, tmp_path / "project", version="v0.2.0")
    for name in UPDATER:
        shutil.copy(released / "template/scripts" / name, project / "scripts" / name)
    fits, clashes = (
        project / "migrations/versions/0002_budgets.py",
        project / "app/guard/pipeline.py",
    )
    fits.write_text(fits.read_text() + "\nMINE = 1\n")
    clashes.write_text("# mine\n".join(clashes.read_text().splitlines(keepends=True)))
    commit_all(project, "Edit")
    stopped = make_update(project)
    assert stopped.returncode == 1
    assert (
        "migrations/versions/0002_budgets.py → gateway/migrations/versions/0002_budgets.py"
        in stopped.stdout
    )
    place = "has gateway/pipeline/pipeline.py instead: move your edit there"
    assert "app/guard/pipeline.py: you edited it, " in stopped.stdout
    assert place in stopped.stdout
    assert "0002_budgets.py:" not in stopped.stdout

    git(project, "checkout", "HEAD~1", "--", "app/guard/pipeline.py")
    commit_all(project, "Undo the other edit")
    done = make_update(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not fits.exists()
    assert (
        (project / "gateway/migrations/versions/0002_budgets.py")
        .read_text()
        .endswith("\nMINE = 1\n")
    )


def test_moved_files_are_where_the_list_says() -> None:
    lines = (ROOT / "template/scripts/moved.txt").read_text().splitlines()
    pairs = [line.split() for line in lines]
    plain = {
        plain_name(path.relative_to(ROOT / "template")) for path in (ROOT / "template").rglob("*")
    }
    assert [new for _, new in pairs if new not in plain] == []
    assert len({old for old, _ in pairs}) == len(pairs)


def plain_name(path: Path) -> str:
    """The path of a template's file in a project that has it."""
    return re.sub(r"{% if \w+ %}(.*?){% endif %}", r"\1", path.as_posix()).removesuffix(".jinja")


def edit_all(project: Path, paths: set[str]) -> Tree:
    """Append to the given files and add a new one; return what these are now."""
    for path in paths:
        with (project / path).open("ab") as file:
            file.write(b"\nan edit\n")
    (project / "own.txt").write_text("A file of the user's own.\n")
    commit_all(project, "Edit")
    return {path: file for path, file in tree_of(project).items() if path in paths | {"own.txt"}}


def texts_in_both(old: Tree, new: Tree) -> set[str]:
    """Return the files that are the same in both, without binaries: `copier update` resets them."""
    return {path for path, file in old.items() if new.get(path) == file and b"\0" not in file[0]}


def test_next_version_keeps_edits(evolution: Path, project: Path, tmp_path: Path) -> None:
    """In each file that the template did not change."""
    fresh = tree_of(copy(evolution, tmp_path / "fresh"))
    edits = edit_all(project, texts_in_both(tree_of(project), fresh))
    copier.run_update(project, defaults=True, overwrite=True, quiet=True)
    assert tree_of(project) == fresh | edits


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree's template as version 1.0, without the history of this repository."""
    repository = copy_template(tmp_path_factory.mktemp("whole"))
    git(repository, "init", "--quiet", "--initial-branch", "main")
    commit_all(repository, "One", tag="1.0")
    return repository


@pytest.fixture(scope="module")
def unswitched(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(whole, tmp_path_factory.mktemp("unswitched"))


@pytest.mark.slow  # each is three renderings
@pytest.mark.parametrize("new", SWITCHES.values(), ids=SWITCHES)
def test_switch_makes_a_new_project_and_keeps_edits(
    new: dict[str, Any], whole: Path, unswitched: Path, tmp_path: Path
) -> None:
    """In each file that the switch does not concern."""
    project = Path(shutil.copytree(unswitched, tmp_path / "project"))
    fresh = tree_of(copy(whole, tmp_path / "fresh", **new))
    edits = edit_all(project, texts_in_both(tree_of(project), fresh))
    copier.run_update(project, data=new, vcs_ref="1.0", defaults=True, overwrite=True, quiet=True)
    assert tree_of(project) == fresh | edits


# `make update`: scripts/update.py of a generated project, run as its user does


def make_update(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/update.py", *options]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@contextmanager
def nothing_changes(project: Path) -> Iterator[Path]:
    """Compare all files, Git's too, and give programs a folder for temporary files to clean up.

    Git's index is left out: whoever asks for the status renews time stamps in it.
    """
    scratch = project.with_name("scratch")
    scratch.mkdir()
    before = tree_of(project) | {f".git/{path}": x for path, x in tree_of(project / ".git").items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(scratch))
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # which would keep bytecode away
        yield scratch
    after = tree_of(project) | {f".git/{path}": x for path, x in tree_of(project / ".git").items()}
    assert {path for path in before | after if before.get(path) != after.get(path)} <= {
        ".git/index"
    }
    assert not list(scratch.glob("update-*"))


Edit = Callable[[Path], object]


def append(path: str, text: str) -> Edit:
    return lambda project: (project / path).write_text((project / path).read_text() + text)


def write(path: str, content: bytes) -> Edit:
    def edit(project: Path) -> None:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).write_bytes(content)

    return edit


def delete(path: str) -> Edit:
    return lambda project: (project / path).unlink()


def commit(project: Path, *edits: Edit) -> None:
    for edit in edits:
        edit(project)
    commit_all(project, "Edit")


# An edit of each file, in the order of the list, and what the list says about it.
NEEDS_A_PERSON: dict[str, tuple[Edit, str]] = {
    "added.txt": (write("added.txt", b"new in the project\n"), "you and 2.0 both added it"),
    "changed.txt": (write("changed.txt", b"mine\n"), "you and 2.0 changed the same lines"),
    "deleted.txt": (append("deleted.txt", "mine\n"), "you edited it, 2.0 deletes it"),
    "image.bin": (write("image.bin", OWN_IMAGE), "you and 2.0 changed this binary"),
    "moved.txt": (append("moved.txt", "mine\n"), "you edited it, 2.0 has elsewhere.txt instead"),
}


def test_stops_with_a_list_and_changes_nothing(project: Path) -> None:
    commit(project, *(edit for edit, _ in NEEDS_A_PERSON.values()))
    with nothing_changes(project):
        stopped = make_update(project)
    assert stopped.returncode == 1, stopped.stderr
    listed = stopped.stdout.partition("These need you:\n")[2].partition("\n\n")[0].splitlines()
    reasons = {path: reason for path, (_, reason) in NEEDS_A_PERSON.items()}
    assert [line.strip().split(": ")[:2] for line in listed] == [list(x) for x in reasons.items()]


@pytest.mark.slow
@pytest.mark.parametrize(("edit", "reason"), NEEDS_A_PERSON.values(), ids=NEEDS_A_PERSON)
def test_one_file_is_enough_to_stop(edit: Edit, reason: str, project: Path) -> None:
    commit(project, edit)
    with nothing_changes(project):
        stopped = make_update(project)
    assert stopped.returncode == 1, stopped.stderr
    assert stopped.stdout.count(": you ") == stopped.stdout.count(reason) == 1


@pytest.mark.slow
def test_stops_before_a_switch_that_deletes_an_edited_file(project: Path) -> None:
    """And does not move the edit into the similar file of the other option."""
    commit(project, append("railway_notes.md", "mine\n"))
    with nothing_changes(project):
        stopped = make_update(project, "--to=1.0", "--data=host=compose")
    assert stopped.returncode == 1, stopped.stderr
    assert "railway_notes.md: you edited it, 1.0 has compose_notes.md instead: " in stopped.stdout
    assert 'make update ARGS="--to=1.0 --data=host=compose --leave-conflicts"' in stopped.stdout


def test_keeps_every_edit_that_it_can(evolution: Path, project: Path, tmp_path: Path) -> None:
    """What the template has changed, moved and deleted arrives around the edits, staged."""
    mine = [append(f"{name}.txt", "mine\n") for name in ("changed", "kept")]
    engine = append("gateway/ids.py", "MINE = 1\n")
    commit(project, *mine, engine, write("own.bin", OWN_IMAGE), delete("image.bin"))
    edited = tree_of(project)["gateway/ids.py"]

    done = make_update(project)

    assert done.returncode == 0, done.stderr
    expected = tree_of(copy(evolution, tmp_path / "fresh")) | {
        "changed.txt": (f"changed by the template\n{NUMBERED}mine\n".encode(), False),
        "kept.txt": (f"kept\n{NUMBERED}mine\n".encode(), False),
        "own.bin": (OWN_IMAGE, False),
        "gateway/ids.py": edited,
    }
    del expected["image.bin"]
    assert tree_of(project) == expected
    assert "better sent to the template):\n  gateway/ids.py\n" in done.stdout
    assert "You deleted these, so they stay away:\n  image.bin\n" in done.stdout
    assert git(project, "diff") == ""


@pytest.mark.slow
def test_keeps_a_binary_and_a_mode_that_only_the_user_changed(project: Path) -> None:
    """`copier update` resets the binary."""
    commit(
        project, write("image.bin", OWN_IMAGE), lambda project: (project / "kept.txt").chmod(0o755)
    )
    done = make_update(project, "--to=1.0", "--data=license=proprietary")
    assert done.returncode == 0, done.stderr
    assert tree_of(project)["image.bin"] == (OWN_IMAGE, False)
    assert tree_of(project)["kept.txt"] == (f"kept\n{NUMBERED}".encode(), True)


@pytest.mark.slow
def test_untouched_project_becomes_a_new_one(
    evolution: Path, project: Path, tmp_path: Path
) -> None:
    """Once more, it is up to date."""
    done = make_update(project)
    assert done.returncode == 0, done.stderr
    assert tree_of(project) == tree_of(copy(evolution, tmp_path / "fresh"))

    commit(project)
    again = make_update(project)
    assert (again.returncode, again.stdout) == (0, "Up to date: 2.0.\n")


@pytest.mark.slow
def test_follows_a_template_on_github(
    evolution: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the answers name it; Git is told to find it here."""
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.file://{evolution}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/acme/template.git")
    monkeypatch.setenv("COPIER_CACHE_DIR", str(tmp_path / "cache"))
    fresh = copy(evolution, tmp_path / "fresh")
    for folder in (project, fresh):
        answers = folder / ".copier-answers.yml"
        answers.write_text(answers.read_text().replace(str(evolution), "gh:acme/template"))
    commit(project)

    done = make_update(project)

    assert done.returncode == 0, done.stderr
    assert tree_of(project) == tree_of(fresh)


# Settings of a user's git, each of which would make other files than git stores, or stop a command.
SETTINGS: dict[str, str] = {
    "autocrlf": "[core]\n\tautocrlf = true\n",
    "eol": "[core]\n\teol = crlf\n\tattributesFile = {folder}/attributes\n",
    "rest": "[init]\n\tdefaultBranch = template\n[commit]\n\tgpgSign = true\n"
    "[tag]\n\tgpgSign = true\n[gpg]\n\tprogram = false\n[merge]\n\tconflictStyle = diff3\n"
    "[apply]\n\twhitespace = error\n[diff]\n\tnoprefix = true\n[core]\n\tsafecrlf = true\n",
}


def git_of_a_user(folder: Path, settings: str, patch: pytest.MonkeyPatch) -> None:
    """Let git be set up for a person, and nothing else of this machine's count."""
    folder.mkdir()
    (folder / "attributes").write_text("* text eol=crlf\n*.bin -text\n")
    name = "[user]\n\tname = Ada\n\temail = ada@example.com\n"
    (folder / "config").write_text(name + settings.format(folder=folder))
    patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "config"))
    patch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def copy_as(template: Path, project: Path, version: str) -> Path:
    """Generate and commit a project in processes of their own, which see the user's settings."""
    answers = project.with_name("answers.yml")
    answers.write_text(yaml.safe_dump(BASE_ANSWERS))
    flags = ("--defaults", "--quiet", f"--vcs-ref={version}", f"--data-file={answers}")
    copier_copy = [sys.executable, "-m", "copier", "copy", *flags, str(template), str(project)]
    subprocess.run(copier_copy, check=True)
    for command in ("init --quiet", "add --all", "commit --quiet --no-gpg-sign -m Generate"):
        subprocess.run(["git", *command.split()], cwd=project, check=True, capture_output=True)
    return project


@pytest.fixture(scope="module")
def without_attributes(evolution: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same evolution, but that its first version is older than `.gitattributes`."""
    repository = tmp_path_factory.mktemp("without") / "template"
    git(evolution, "clone", "--quiet", str(evolution), str(repository))
    git(repository, "checkout", "--quiet", "1.0")
    git(
        repository, "rm", "--quiet", "--ignore-unmatch", "template/.gitattributes", ".gitattributes"
    )
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "Old")
    git(repository, "tag", "--force", "1.0")
    return repository


@pytest.fixture(scope="module")
def second_version(evolution: Path, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What a project of version 2.0 has, but for its answers, which tell the template's address."""
    return without_answers(tree_of(copy(evolution, tmp_path_factory.mktemp("second"))))


def without_answers(tree: Tree) -> Tree:
    return {path: file for path, file in tree.items() if path != ".copier-answers.yml"}


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_of_git_make_no_conflict_and_no_other_file(
    settings: str,
    without_attributes: Path,
    second_version: Tree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also in a project that is older than `.gitattributes`, whose lines end in CRLF."""
    git_of_a_user(tmp_path / "user", settings, monkeypatch)
    project = copy_as(without_attributes, tmp_path / "project", "1.0")

    done = make_update(project)

    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert git(project, "diff") == ""
    assert without_answers(tree_of(project)) == second_version


@pytest.mark.slow
def test_ends_of_lines_that_were_committed_are_no_edit(
    without_attributes: Path, second_version: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a project that was copied with `core.autocrlf`, and committed without it."""
    git_of_a_user(tmp_path / "user", SETTINGS["autocrlf"], monkeypatch)
    project = copy_as(without_attributes, tmp_path / "project", "1.0")
    git(project, "config", "core.autocrlf", "false")
    assert b"\r\n" in (project / "changed.txt").read_bytes()
    edits = {"changed.txt": f"changed by the template\n{NUMBERED}mine\n", "kept.txt": "mine\n"}
    (project / "changed.txt").write_bytes((project / "changed.txt").read_bytes() + b"mine\r\n")
    (project / "kept.txt").write_bytes(b"mine\r\n")
    git(project, "add", "--renormalize", ".")
    git(project, "commit", "--quiet", "--message", "As they are")

    done = make_update(project)

    assert done.returncode == 0, done.stdout + done.stderr
    found = without_answers(tree_of(project)).items()
    lines = {path: (content.replace(b"\r\n", b"\n"), mode) for path, (content, mode) in found}
    expected = {path: (text.encode(), False) for path, text in edits.items()}
    assert lines == second_version | expected


CHECKED_OUT_AGAIN = """git config --global core.autocrlf input
git rm -r --quiet --cached . && git reset --hard
"""


@pytest.mark.slow
def test_an_older_project_is_checked_out_again_with_lf(
    without_attributes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the commands of docs/how-to/update.md, for projects whose updater needs it."""
    git_of_a_user(tmp_path / "user", SETTINGS["autocrlf"], monkeypatch)
    project = copy_as(without_attributes, tmp_path / "project", "1.0")
    assert b"\r\n" in (project / "changed.txt").read_bytes()

    subprocess.run(["sh", "-ec", CHECKED_OUT_AGAIN], cwd=project, check=True, capture_output=True)

    assert not [path for path, (content, _) in tree_of(project).items() if b"\r\n" in content]
    assert git(project, "status", "--porcelain") == ""


@pytest.mark.slow
def test_settings_of_git_change_no_file_of_a_new_project(
    evolution: Path, second_version: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "[core]\n\tautocrlf = true\n\tsafecrlf = true\n\teol = crlf\n"
    git_of_a_user(tmp_path / "user", settings, monkeypatch)
    project = copy_as(evolution, tmp_path / "project", "2.0")
    assert without_answers(tree_of(project)) == second_version
    subprocess.run(["git", "clone", "--quiet", str(project), str(tmp_path / "clone")], check=True)
    assert tree_of(tmp_path / "clone") == tree_of(project)


@pytest.mark.slow
def test_switches_options(evolution: Path, project: Path, tmp_path: Path) -> None:
    """To what a new project has; here without a new version."""
    new = {"database": "postgres", "providers": ["replicate"]}
    done = make_update(
        project, "--to=1.0", "--data=database=postgres", "--data=providers=[replicate]"
    )
    assert done.returncode == 0, done.stderr
    assert tree_of(project) == tree_of(copy(evolution, tmp_path / "fresh", version="1.0", **new))


@pytest.mark.slow
def test_check_tells_and_changes_nothing(project: Path) -> None:
    with nothing_changes(project):
        told = make_update(project, "--check")
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("To 2.0, these change:\n")
    assert "  D\tdeleted.txt\n" in told.stdout
    assert told.stdout.endswith("Do it: make update\n")


@pytest.mark.parametrize("path", ["app/migrations/versions/1_notes.py", "notes.py"])
def test_tells_of_new_migrations_who_has_some_of_their_own(path: str, project: Path) -> None:
    commit(project, write(path, b'revision = "1"\n'))
    told = make_update(project, "--check")
    assert told.returncode == 0, told.stderr
    listed = f"docs/add-a-table.md says what to do:\n  {NEW_MIGRATION}\n" in told.stdout
    assert listed == path.startswith("app/")


ECHO = "make --no-print-directory -f echo.mk"
# A dollar, quotes, spaces: all that make or a shell could take for something else.
DESCRIPTION = """It's "$HOME", `pwd`, $(HOME) \\ [a, b]."""


@pytest.mark.slow
def test_what_it_says_to_do_keeps_the_arguments(project: Path) -> None:
    """As make and the shell read them."""
    answers = (f"--data=project_description={DESCRIPTION}", "--data=providers=[openai, replicate]")
    with nothing_changes(project):
        told = make_update(project, "--check", "--to=1.0", *answers)
    verb = told.stdout.rpartition("Do it: ")[2].replace("make", ECHO, 1)
    (project / "echo.mk").write_text("update:\n\t@printf '%s\\n' $(ARGS)\n")
    command = ["sh", "-c", verb]
    typed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True)
    assert typed.stdout.splitlines() == ["--to=1.0", *answers]


@pytest.mark.slow
def test_project_in_a_folder_of_a_repository(evolution: Path, tmp_path: Path) -> None:
    """The rest of the repository takes no part, though it may be dirty."""
    repository = tmp_path / "repository"
    project = copy(evolution, repository / "services/acme", version="1.0")
    shutil.rmtree(project / ".git")
    git(repository, "init", "--quiet")
    commit(repository)
    (repository / "draft.txt").touch()

    done = make_update(project)

    assert done.returncode == 0, done.stderr
    assert tree_of(project) == tree_of(copy(evolution, tmp_path / "fresh"))
    assert git(repository, "status", "--porcelain").endswith("?? draft.txt\n")


@pytest.mark.slow
def test_leaves_conflicts_to_git_when_told_to(project: Path) -> None:
    """All else is updated; Git knows what is to be settled, and can undo all of it."""
    commit(project, *(edit for edit, _ in NEEDS_A_PERSON.values()))

    done = make_update(project, "--leave-conflicts")

    assert done.returncode == 1, done.stderr
    status = git(project, "status", "--porcelain").splitlines()
    settle = ["AA added.txt", "UU changed.txt", "UD deleted.txt", "UU image.bin", "UD moved.txt"]
    assert {*settle, "A  elsewhere.txt", "M  .copier-answers.yml"} <= set(status)
    assert "<<<<<<< HEAD\nmine\n" in (project / "changed.txt").read_text()
    assert git(project, "show", ":2:image.bin", ":3:image.bin").encode() == OWN_IMAGE + NEW_IMAGE
    git(project, "reset", "--quiet", "--hard")
    assert git(project, "status", "--porcelain") == ""


# What stands in for uv; what becomes of a lock file, what is said of it, and the exit code.
UVS: dict[str, tuple[str, str, str, int]] = {
    "locks": ("cp pyproject.toml uv.lock", "M  uv.lock", "Locked again, and staged: uv.lock.", 0),
    "fails": ("exit 2", "", "uv.lock is as it was. Before you commit: make setup", 1),
}


@pytest.mark.parametrize(("uv", "status", "sentence", "code"), UVS.values(), ids=UVS)
def test_locks_the_new_dependencies(
    uv: str, status: str, sentence: str, code: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(project, write("uv.lock", b"old\n"))
    program = project.with_name("uv")
    program.write_text(f'#!/bin/sh\n[ "$1" = lock ] && {uv}\n')
    program.chmod(0o755)
    monkeypatch.setenv("UV", str(program))

    done = make_update(project, "--to=1.0", "--data=database=postgres")

    assert done.returncode == code, done.stderr
    assert sentence in done.stdout
    assert git(project, "status", "--porcelain", "uv.lock").strip() == status
    assert git(project, "diff") == ""


@pytest.mark.slow
def test_locks_nothing_for_the_same_dependencies(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 2.0 asks for the same ones."""
    commit(project, write("uv.lock", b"old\n"))
    monkeypatch.setenv("UV", "/no/such/uv")
    done = make_update(project)
    assert done.returncode == 0, done.stdout
    assert "uv.lock" not in done.stdout


def test_update_installs_nothing_that_could_change_the_lock_file(project: Path) -> None:
    command = ["make", "--dry-run", "update"]
    told = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    assert "scripts/update.py" in told
    assert " sync " not in told


REFUSED: dict[str, tuple[Edit, str]] = {
    "changed-file": (append("kept.txt", "draft\n"), "Commit or stash these"),
    "new-file": (write("draft.txt", b"draft\n"), "Commit or stash these"),
    "no-repository": (lambda project: shutil.rmtree(project / ".git"), "This is no git repository"),
    "no-answers": (delete(".copier-answers.yml"), "Restore .copier-answers.yml"),
}


@pytest.mark.parametrize(("edit", "sentence"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_it_could_not_undo(edit: Edit, sentence: str, project: Path) -> None:
    edit(project)
    with nothing_changes(project):
        refused = make_update(project)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith(sentence)


def test_says_what_a_template_that_is_not_found_may_be(project: Path) -> None:
    answers = project / ".copier-answers.yml"
    recorded = re.sub("(?m)^_src_path: .*", "_src_path: ../template", answers.read_text())
    answers.write_text(recorded)
    commit(project)
    with nothing_changes(project):
        refused = make_update(project)
    assert refused.returncode == 2
    assert "_src_path in .copier-answers.yml has to be the template's address" in refused.stderr


WRONG: dict[str, tuple[str, str]] = {
    "no-value": ("--data=database", "'database' is no KEY=VALUE"),
    "no-question": ("--data=databse=postgres", "There is no question 'databse'"),
    "no-choice": (
        "--data=database=oracle",
        "'oracle' is not in ['sqlite', 'postgres', 'supabase']",
    ),
    "no-list": ("--data=providers=openai", "--data 'providers=[one, another]'"),
    "no-version": ("--to=9.9", "Unknown revision: '9.9'"),
}


@pytest.mark.parametrize(("option", "sentence"), WRONG.values(), ids=WRONG)
def test_says_what_is_wrong_with_an_option(option: str, sentence: str, project: Path) -> None:
    with nothing_changes(project):
        refused = make_update(project, option)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow
def test_leaves_nothing_behind_when_interrupted(project: Path) -> None:
    with nothing_changes(project) as scratch:
        command = [sys.executable, "scripts/update.py"]
        updater = subprocess.Popen(command, cwd=project, start_new_session=True)
        while not list(scratch.glob("update-*/new/*")):
            assert updater.poll() is None
            time.sleep(0.01)
        os.killpg(updater.pid, signal.SIGINT)
        assert updater.wait(timeout=300) == 130
