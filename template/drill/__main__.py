"""Run the drill: `python -m drill`, or `make drill`; `JSON=1` prints a list of findings.

Exit code 0: every promise holds; 1: one is broken; 130: it was told to stop.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import NamedTuple

from app import wiring
from drill.environment import scene
from drill.guarantees import Finding, Promise
from drill.order import PROMISES
from drill.report import heading, line

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_PROCESSES = 20


class Wish(NamedTuple):
    """What is looked at, at how many processes, and how it is told."""

    promises: Sequence[Promise]
    processes: int
    as_json: bool


def main() -> int:
    """Look at promises, in a folder that is kept when one is broken."""
    wish = _wish()
    directory = Path(mkdtemp(prefix="drill-"))
    try:
        findings = asyncio.run(_until_stopped(directory, wish))
    except asyncio.CancelledError:
        shutil.rmtree(directory)
        return 130
    if wish.as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.verdict != "holds" for finding in findings):
        print(f"The logs of the processes are in {directory}.", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    return 0


def _wish() -> Wish:
    parser = argparse.ArgumentParser(prog="python -m drill", description=__doc__)
    many = range(1, MAX_PROCESSES + 1) if wiring.MANY_PROCESSES else (1,)
    parser.add_argument("--only", default="", metavar="TEXT", help="promises with these words")
    parser.add_argument("--processes", type=int, choices=many, default=many[:3][-1], metavar="N")
    asked = parser.parse_args()
    promises = [promise for promise in PROMISES if asked.only in promise.text]
    if not promises:
        parser.error(f"no promise has the words {asked.only!r}")
    return Wish(promises, asked.processes, bool(os.environ.get("JSON")))


async def _until_stopped(directory: Path, wish: Wish) -> Sequence[Finding]:
    """End everything in order when a signal asks to stop, and be told so once."""
    drill = asyncio.create_task(_drill(directory, wish))

    def stop() -> None:
        if not drill.cancelling():
            drill.cancel()

    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await drill


async def _drill(directory: Path, wish: Wish) -> Sequence[Finding]:
    findings = []
    async with scene(directory, wish.processes) as where:
        if not wish.as_json:
            print(heading(), flush=True)
        for promise in wish.promises:
            finding = await promise.find(where)
            findings.append(finding)
            if not wish.as_json:
                print(line(finding), flush=True)
    return findings


if __name__ == "__main__":
    sys.exit(main())
