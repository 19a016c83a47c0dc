"""Answers of the template's interview that still stand at their defaults."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

OWNER = "@your-github-name"
EMAIL = "maintainers@example.com"


def placeholders(root: Path, project: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The files in `root` that have such an answer, and what to write there.

    An image has none of the files.
    """
    if OWNER in _text(root / ".github/CODEOWNERS"):
        yield ".github/CODEOWNERS", f"it names {OWNER}: enter those who review changes"
    author = {"name": project["title"], "email": EMAIL}
    copyrights = [line for line in _text(root / "LICENSE").splitlines() if "Copyright" in line]
    if author in project["authors"] and any(project["title"] in line for line in copyrights):
        advice = "it names the project as its author: enter the person or the company that owns it"
        yield "LICENSE", f"{advice}, in pyproject.toml too"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""
