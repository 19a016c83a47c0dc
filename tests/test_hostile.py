"""Any text in a free answer gives a project that passes its own tests and checks."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from combinations import HOSTILE, Combination
from conftest import Render, files_of
from environments import environment_with
from processes import clean_environment
from projects import Project, requirements_of

# The files in which a free answer lands.
LANDS_IN = {
    *(".copier-answers.yml", ".github/CODEOWNERS", "LICENSE", "README.md", "pyproject.toml"),
    *("compose.yaml", "docs/deploy-compose.md", "docs/deploy-railway.md", "docs/release.md"),
}
# What a test says that sees what the service makes of one.
READS = re.compile(r"\.project\b|/openapi\.json|/docs\"|ROOT / \"(README|LICENSE|compose)")
SUITE_SECONDS = 600

hostile = pytest.mark.parametrize("answers", HOSTILE.values(), ids=HOSTILE)


@hostile
def test_no_code_depends_on_a_free_answer(
    render: Render, trees: dict[Combination, Path], answers: dict[str, Any]
) -> None:
    """So types, lint and the tests that read nothing else are proven by the plain projects."""
    plain = files_of(trees[_combination(answers)])
    files = files_of(render(**answers))
    assert files.keys() == plain.keys()
    assert {path for path, text in files.items() if text != plain[path]} <= LANDS_IN


@pytest.mark.slow
@hostile
def test_the_tests_that_see_a_free_answer_pass(render: Render, answers: dict[str, Any]) -> None:
    directory = render(**answers)
    python = environment_with(requirements_of(directory)) / "bin/python"
    files = sorted((directory / "tests").rglob("test_*.py"))
    seeing = [test for file in files for test in _seeing(file)]
    assert any("test_console.py" in test for test in seeing)
    project = Project(directory, python, clean_environment())
    project.run("pytest", "-q", *seeing, seconds=SUITE_SECONDS)
    project.run("deptry", ".")


def _seeing(file: Path) -> list[str]:
    """Name the tests of a file that see an answer; all, if something that they share does."""
    text = file.read_text(encoding="utf-8")
    parts = ast.parse(text).body
    seeing = [part for part in parts if READS.search(ast.get_source_segment(text, part) or "")]
    names = [getattr(part, "name", "") for part in seeing]
    if all(name.startswith("test_") for name in names):
        return [f"{file}::{name}" for name in names]
    return [str(file)]


def _combination(answers: dict[str, Any]) -> Combination:
    chosen = {name: answers[name] for name in Combination.__dataclass_fields__}
    return Combination(**chosen | {"providers": tuple(answers["providers"])})
