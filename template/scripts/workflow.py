"""What a script reads from a workflow's run, and what it tells it; on a laptop it just prints."""

import json
import os
import sys
from pathlib import Path


def variable(name: str, default: str = "") -> str:
    """A setting: of the process, or of the repository and the environment that the job runs in.

    A job hands the latter over in `VARIABLES`, as JSON: which there are depends on the host.
    """
    handed_over = json.loads(os.environ.get("VARIABLES") or "{}")
    value: str = os.environ.get(name) or handed_over.get(name) or default
    return value.strip()


def output(name: str, value: str) -> None:
    """Hand a value of one line to the jobs that follow."""
    _append("GITHUB_OUTPUT", f"{name}={value}")


def summary(text: str) -> None:
    """Print a text, and show it on the page of the run."""
    print(text, flush=True)
    _append("GITHUB_STEP_SUMMARY", f"{text}\n")


def notice(text: str) -> None:
    """Say something that is no failure, but should be seen."""
    _annotate("notice", text)


def error(text: str) -> None:
    """Say what failed. The caller ends with an exit code that fits."""
    _annotate("error", text)


def _annotate(kind: str, text: str) -> None:
    if os.environ.get("GITHUB_ACTIONS") == "true":
        escaped = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
        print(f"::{kind}::{escaped}", flush=True)
    else:
        print(f"{kind}: {text}", file=sys.stderr, flush=True)


def _append(variable: str, line: str) -> None:
    if path := os.environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
