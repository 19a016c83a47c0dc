"""Workflows as act really runs them, without Docker: actions have stand-ins in tests/actions/."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from working_tree import ROOT

BIN = Path(sys.executable).parent
ACT_SECONDS = 1200
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;;.*?\x1b\\")


@dataclass(frozen=True)
class Ran:
    """What came of a run: its jobs and how each ended, and all that was printed."""

    code: int
    log: str

    @property
    def jobs(self) -> dict[str, bool]:
        """By name, whether a job that ran succeeded."""
        ended = re.findall(r"^\[([^\]]+)\] 🏁  Job (succeeded|failed)", self.log, re.MULTILINE)
        return {job.strip().rsplit("/", 1)[-1]: how == "succeeded" for job, how in ended}


def act(
    directory: Path,
    event: str,
    workflow: str,
    *arguments: str,
    path: Sequence[Path] = (),
    **options: dict[str, str],
) -> Ran:
    """Run a workflow of a repository; each option, such as `secret`, has values by name."""
    command = [str(BIN / "act"), event, "--pull=false", "-P", "ubuntu-24.04=-self-hosted"]
    command += [*_stand_in_actions(directory), *arguments]
    for option, values in options.items():
        command += [f"--{option}={name}={value}" for name, value in values.items()]
    # What `make test` sets is not for the make of a project.
    given = {name: value for name, value in os.environ.items() if name[:4] not in ("MAKE", "MFLA")}
    programs = os.pathsep.join([*map(str, [*path, BIN]), os.environ["PATH"]])
    with _known_to_act(directory / ".github/workflows" / workflow) as file:
        done = subprocess.run(
            [*command, "-W", file],
            cwd=directory,
            env={"UV_SYSTEM_CERTS": "true"} | given | {"PATH": programs},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=ACT_SECONDS,
            check=False,
        )
    return Ran(done.returncode, COLOUR.sub("", done.stdout))


@contextmanager
def _known_to_act(workflow: Path) -> Iterator[Path]:
    """Write it aside with another name for its own repository than `$/`, which act knows not."""
    with TemporaryDirectory(prefix="workflows-") as folder:
        copy = Path(folder, workflow.name)
        copy.write_text(workflow.read_text(encoding="utf-8").replace("uses: $/", "uses: ./"))
        yield copy


def _stand_in_actions(directory: Path) -> Iterator[str]:
    """Put a stand-in in the place of every action that has one; act has a checkout of its own."""
    texts = [path.read_text(encoding="utf-8") for path in (directory / ".github").glob("**/*.yml")]
    for action in set(re.findall(r"uses: ([\w-]+/[\w-]+@[0-9a-f]{40})", "\n".join(texts))):
        folder = ROOT / "tests/actions" / action.partition("/")[2].partition("@")[0]
        if folder.exists():
            yield f"--local-repository={action}={folder}"
