"""Workflows as act really runs them, without Docker: actions have stand-ins in tests/actions/."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from working_tree import ROOT

BIN = Path(sys.executable).parent
ACT_SECONDS = 600


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


def name_as_act_does(directory: Path) -> None:
    """Rewrite `$/`, the repository of the workflow itself, which is not known to act."""
    for path in (directory / ".github").glob("**/*.yml"):
        path.write_text(path.read_text(encoding="utf-8").replace("uses: $/", "uses: ./"))


def act(
    directory: Path,
    event: str,
    workflow: str,
    *arguments: str,
    path: Sequence[Path] = (),
    **options: dict[str, str],
) -> Ran:
    """Run a workflow; each option, such as `secret`, has values by name."""
    command = [str(BIN / "act"), event, "-W", f".github/workflows/{workflow}", "--pull=false"]
    command += ["-P", "ubuntu-24.04=-self-hosted", *_stand_in_actions(directory), *arguments]
    for option, values in options.items():
        command += [f"--{option}={name}={value}" for name, value in values.items()]
    programs = os.pathsep.join([*map(str, [*path, BIN]), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=directory,
        env={"UV_SYSTEM_CERTS": "true"} | os.environ | {"PATH": programs},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=ACT_SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout)


def _stand_in_actions(directory: Path) -> Iterator[str]:
    """Put a stand-in in the place of every action that has one; act has a checkout of its own."""
    texts = [path.read_text(encoding="utf-8") for path in (directory / ".github").glob("**/*.yml")]
    for action in set(re.findall(r"uses: ([\w-]+/[\w-]+@[0-9a-f]{40})", "\n".join(texts))):
        folder = ROOT / "tests/actions" / action.partition("/")[2].partition("@")[0]
        if folder.exists():
            yield f"--local-repository={action}={folder}"
