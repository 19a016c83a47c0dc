"""Run the drill: `python -m drill`, or `make drill`; `JSON=1` prints a list of findings.

Exit code 0: every promise holds; 1: one is broken; 130: it was told to stop.
"""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

from drill.order import PROMISES
from drill.promises import Finding
from drill.report import heading, line
from drill.scene import scene

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Look at every promise, in a folder that is kept when one is broken."""
    directory = Path(mkdtemp(prefix="drill-"))
    as_json = bool(os.environ.get("JSON"))
    try:
        findings = asyncio.run(_until_stopped(directory, as_json=as_json))
    except asyncio.CancelledError:
        shutil.rmtree(directory)
        return 130
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    if any(finding.verdict != "holds" for finding in findings):
        print(f"The logs of the processes are in {directory}.", file=sys.stderr)
        return 1
    shutil.rmtree(directory)
    return 0


async def _until_stopped(directory: Path, *, as_json: bool) -> Sequence[Finding]:
    """End everything in order when a signal asks to stop, and be told so once."""
    drill = asyncio.create_task(_drill(directory, as_json=as_json))

    def stop() -> None:
        if not drill.cancelling():
            drill.cancel()

    for number in STOPS:
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return await drill


async def _drill(directory: Path, *, as_json: bool) -> Sequence[Finding]:
    findings = []
    async with scene(directory) as where:
        if not as_json:
            print(heading(), flush=True)
        for promise in PROMISES:
            finding = await promise.find(where)
            findings.append(finding)
            if not as_json:
                print(line(finding), flush=True)
    return findings


if __name__ == "__main__":
    sys.exit(main())
