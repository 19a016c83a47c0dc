"""`make preview ANSWERS=file.yml`: render the working tree into build/preview."""

import sys
from pathlib import Path
from subprocess import SubprocessError

import yaml
from copier.errors import CopierError
from working_tree import ROOT, preview


def main(arguments: list[str]) -> str | None:
    """Render, and return what went wrong."""
    if len(arguments) != 1:
        return "Name a YAML file with answers, for example: make preview ANSWERS=tests/answers.yml"
    project = ROOT / "build" / "preview"
    try:
        answers = yaml.safe_load(Path(arguments[0]).read_text(encoding="utf-8"))
        if not isinstance(answers, dict):
            return f"{arguments[0]} has no answers: write one `question: answer` a line."
        preview(project, answers)
    except (OSError, ValueError, yaml.YAMLError, CopierError, SubprocessError) as error:
        return f"Nothing to look at: {error}"
    print(f"Rendered into {project.relative_to(ROOT)}.")
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
