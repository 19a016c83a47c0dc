"""Run the simulator as a process of its own: `python -m tests.simulator --port 0`.

The first line of standard output is {"url": ...}, once it listens; it runs until SIGTERM or SIGINT.
"""

import argparse
import asyncio
import json
import signal
import sys

import uvloop

from tests.simulator.server import Simulator


async def serve(port: int) -> None:
    """Listen until a signal asks to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    simulator = Simulator()
    await simulator.start(port)
    sys.stdout.write(json.dumps({"url": simulator.url}) + "\n")
    sys.stdout.flush()
    await stopped.wait()
    await simulator.stop()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, picks a free one")
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
