"""`examples/billing/` works in a project, copied in as its page in `docs/how-to/` says."""

import re
import shutil
import subprocess
from pathlib import Path

from conftest import Render
from environments import environment_with
from processes import clean_environment
from projects import requirements_of
from test_docs import follow
from working_tree import ROOT

EXAMPLE = ROOT / "examples/billing"
PAGE = (ROOT / "docs/how-to/billing-with-stripe.md").read_text(encoding="utf-8")
# What it has a part in: the tables, the settings, the routes, and what a user leaves behind.
TESTS = ("billing", "settings", "roles", "openapi", "user_data", "gateway/test_migrations")


def test_it_follows_the_newest_migration() -> None:
    """The tables that it refers to are there when it runs."""
    numbered = (ROOT / "template/gateway/migrations/versions").glob("[0-9]*.py")
    names = {path.name[:4] for path in numbered}
    own = (EXAMPLE / "app/migrations/versions/billing.py").read_text(encoding="utf-8")
    needed = re.search('depends_on = "([0-9]+)"', own)
    assert needed
    assert needed[1] in names


def test_it_works_in_a_project(render: Render) -> None:
    project = render()
    shutil.copytree(EXAMPLE, project, dirs_exist_ok=True)  # cp -r TEMPLATE/examples/billing/. .
    follow(PAGE, project)
    tools = environment_with(requirements_of(project)) / "bin"
    _run(project, tools / "ruff", "check", "--fix", "--quiet")  # as `make format`
    _run(project, tools / "ruff", "format", "--quiet")
    tests = [f"tests/{name}.py" if "/" in name else f"tests/test_{name}.py" for name in TESTS]
    _run(project, tools / "python", "-m", "pytest", "--quiet", "-p", "no:cacheprovider", *tests)
    _run(project, tools / "ruff", "check")
    _run(project, tools / "mypy")
    _run(project, tools / "lint-imports", "--no-cache")


def _run(project: Path, *command: str | Path) -> None:
    done = subprocess.run(
        command,
        cwd=project,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
