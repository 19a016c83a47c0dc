"""`make bench`: what a generated service costs, as ratios to bare applications that run beside it.

No figure is held against a clock, as machines differ: the service and its reference take turns, and
the round with the median ratio counts. The exit code is 1 when a target is missed.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from subprocess import SubprocessError

from figures import Figure, Server, as_json, as_table
from measure import measure_growth, measure_load, measure_log_ins, measure_start
from processes import ProcessError
from services import IN_MEMORY, PASSWORDS, SHARED, measured


def main() -> int | str:
    """Measure and print; return the exit code, or what went wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks/run.py", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the children as Ctrl-C does
    try:
        results = list(_measure())
    except (ProcessError, SubprocessError, OSError, ValueError) as error:
        return f"The benchmark stopped: {error}"
    except KeyboardInterrupt:
        return "Stopped."
    figures = [result for result in results if isinstance(result, Figure)]
    servers = [result for result in results if isinstance(result, Server)]
    print(as_json(figures, servers) if arguments.json else as_table(figures, servers))
    return int(not all(figure.met for figure in figures))


def _measure() -> Iterator[Figure | Server]:
    with measured(IN_MEMORY) as project:
        yield measure_start(project, at_most=2.0)
        yield from measure_load(project, at_least=0.5)
        yield measure_growth(project, at_most=1.3)
    with measured(PASSWORDS) as project:
        yield from measure_log_ins(project)
    with measured(SHARED) as project:
        yield from measure_load(project, at_least=0.4)
        yield measure_growth(project, at_most=1.3)


if __name__ == "__main__":
    sys.exit(main())
