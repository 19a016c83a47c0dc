"""Render the template as it lies in the working tree, uncommitted changes included.

Copier renders a local Git repository from a clone, at a tag. A copy without Git needs no tag, works
from a shallow clone or an unpacked archive, leaves the repository alone and renders faster.
"""

import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import copier
import yaml

ROOT = Path(__file__).resolve().parent.parent


def preview(project: Path, answers: dict[str, Any]) -> None:
    """Put what the working tree makes of `answers` in the place of `project`."""
    with TemporaryDirectory() as template:
        copy_template(Path(template))
        shutil.rmtree(project, ignore_errors=True)
        render(Path(template), project, answers)


def copy_template(destination: Path) -> Path:
    """Copy what Copier reads, `copier.yml` and `template/`, to `destination`, and return that."""
    for path in _files():
        target = destination / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / path, target)
    return destination


def render(template: Path, project: Path, answers: dict[str, Any]) -> None:
    """Render `project` without a prompt and without `--trust`; every answer must be used.

    Copier itself passes over answers to questions that it does not ask.
    """
    copier.run_copy(
        str(template),
        project,
        data=answers,
        defaults=True,
        quiet=True,
        unsafe=False,
        vcs_ref="HEAD",
    )
    arrived = answers_of(project)
    if lost := {name: value for name, value in answers.items() if arrived.get(name) != value}:
        raise ValueError(f"Copier asks no such question, or took another answer: {lost}")


def answers_of(project: Path) -> dict[str, Any]:
    """Read what a project remembers of its answers."""
    text = (project / ".copier-answers.yml").read_text(encoding="utf-8")
    answers: dict[str, Any] = yaml.safe_load(text)
    return answers


def _files() -> list[Path]:
    """List the files that Git has or would take; without Git, every file."""
    if not (ROOT / ".git").exists():
        rendered = [path for path in ROOT.glob("template/**/*") if path.is_file()]
        return [Path("copier.yml"), *(path.relative_to(ROOT) for path in rendered)]
    which = ("--cached", "--others", "--exclude-standard")
    command = ["git", "ls-files", "-z", *which, "copier.yml", "template"]
    names = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    return [Path(name) for name in names.split("\0") if (ROOT / name).is_file()]
