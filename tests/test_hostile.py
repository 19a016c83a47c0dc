"""Any text in a free answer gives a project that passes its own tests and checks."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from combinations import HOSTILE, Combination
from conftest import Render, files_of
from environments import environment_with
from servers import clean_environment, requirements_of

# The files in which a free answer lands.
LANDS_IN = {
    *(".copier-answers.yml", ".github/CODEOWNERS", "LICENSE", "README.md", "pyproject.toml"),
    *("compose.yaml", "docs/deploy-compose.md", "docs/deploy-railway.md", "docs/release.md"),
}
# What a test says that reads one of them, or what the service makes of it.
READS = re.compile(r"project\b|openapi\.json|/docs\b|README|CODEOWNERS|LICENSE|compose\.yaml")
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
    project = render(**answers)
    python = environment_with(requirements_of(project)) / "bin/python"
    tests = sorted((project / "tests").glob("test_*.py"))
    seeing = [path for path in tests if READS.search(path.read_text(encoding="utf-8"))]
    assert project / "tests/test_console.py" in seeing
    for command in (["-m", "pytest", "-q", *map(str, seeing)], ["-m", "deptry", "."]):
        result = subprocess.run(
            [python, *command],
            cwd=project,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=SUITE_SECONDS,
            check=False,
        )
        assert result.returncode == 0, result.stdout[-8000:] + result.stderr


def _combination(answers: dict[str, Any]) -> Combination:
    chosen = {name: answers[name] for name in Combination.__dataclass_fields__}
    return Combination(**chosen | {"providers": tuple(answers["providers"])})
