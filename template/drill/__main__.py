"""Run the drill: `python -m drill`, or `make drill`; `JSON=1` prints a list of findings.

Exit code 0: every promise holds; 1: one is broken; 130: a signal stopped it.
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
from drill.environment import open_environment
from drill.guarantees import Finding, Guarantee
from drill.order import GUARANTEES
from drill.report import heading, line

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MAX_PROCESSES = 20


class Options(NamedTuple):
    """Which guarantees are checked, with how many processes, and in which format they are shown."""

    guarantees: Sequence[Guarantee]
    processes: int
    as_json: bool


def main() -> int:
    """Look at promises, in a folder that is kept when one is broken."""
    options = _options()
    directory = Path(mkdtemp(prefix="drill-"))
    try:
        findings = asyncio.run(_until_stopped(directory, options))
    except asyncio.CancelledError:
        shutil.rmtree(directory)
        return 130
    if options.as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.verdict != "holds" for finding in findings):
        print(f"The logs of the processes are in {directory}.", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    return 0


def _options() -> Options:
    parser = argparse.ArgumentParser(prog="python -m drill", description=__doc__)
    many = range(1, MAX_PROCESSES + 1) if wiring.MANY_PROCESSES else (1,)
    parser.add_argument("--only", default="", metavar="TEXT", help="promises with these words")
    parser.add_argument("--processes", type=int, choices=many, default=many[:3][-1], metavar="N")
    asked = parser.parse_args()
    guarantees = [guarantee for guarantee in GUARANTEES if asked.only in guarantee.text]
    if not guarantees:
        parser.error(f"no promise has the words {asked.only!r}")
    return Options(guarantees, asked.processes, bool(os.environ.get("JSON")))


async def _until_stopped(directory: Path, options: Options) -> Sequence[Finding]:
    """End everything in order at a signal, and say so once."""
    drill = asyncio.create_task(_drill(directory, options))

    def stop() -> None:
        if not drill.cancelling():
            drill.cancel()

    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await drill


async def _drill(directory: Path, options: Options) -> Sequence[Finding]:
    findings = []
    async with open_environment(directory, options.processes) as environment:
        if not options.as_json:
            print(heading(), flush=True)
        for guarantee in options.guarantees:
            finding = await guarantee.find(environment)
            findings.append(finding)
            if not options.as_json:
                print(line(finding), flush=True)
    return findings


if __name__ == "__main__":
    sys.exit(main())
