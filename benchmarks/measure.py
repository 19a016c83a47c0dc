"""The measurements: the service and its reference in turns, each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Any

from figures import Figure, Round, Server, middle
from processes import run
from projects import serving
from services import BENCHMARKS, Endpoint, Measured, answering, fill, passing_through, people

MODEL = "openai/gpt-5-mini"
# The simulated model repeats a question, in a stream one word in each chunk.
QUESTION_WORDS = {"chats": 30, "chunks": 150}
CLIENTS = 32

# Odd numbers, so that one of the rounds is in the middle.
START_ROUNDS = 9
LOAD_ROUNDS = 5
LOAD_SECONDS = 2.5
WARM_UP_SECONDS = 0.5
CHILD_SECONDS = 60
LOG_INS = 40
MOST_MEMORY = 1.3
# Users and predictions, when a service is new and after years; their numbers are far apart.
PASTS = ((10, 1_000), (1_000_000, 10_000_000))
FAR_AWAY = 10**9

Load = dict[str, float]
"""What `load.py` prints: chats and chunks a second, median and 99th percentile in milliseconds."""


def measure_start(project: Measured, *, at_most: float) -> Figure:
    """Compare the seconds from import to ready with those of a bare application."""
    _say(f"Starting {project.choice}")
    # The first round writes the bytecode and brings the files into memory.
    _, *rounds = [
        Round(_start(project, "app.main"), _start(project, "bare")) for _ in range(1 + START_ROUNDS)
    ]
    return Figure(f"import and start, {project.choice}", "s", middle(rounds), at_most, at_most=True)


def measure_load(project: Measured, *, at_least: float) -> Iterator[Figure | Server]:
    """Compare chats and chunks a second with those that a bare pass-through relays."""
    with answering(project) as service, passing_through(project) as reference:
        loads = {unit: _alternate(project, service, reference, unit) for unit in QUESTION_WORDS}
        for unit, pairs in loads.items():
            rounds = [Round(ours[unit], bare[unit]) for ours, bare in pairs]
            yield Figure(f"{unit}, {project.choice}", "1/s", middle(rounds), at_least)
        memory = [endpoint.resident_memory() for endpoint in (service, reference)]
        if memory[0] and memory[1]:
            name = f"resident memory, {project.choice}"
            yield Figure(name, "MiB", Round(memory[0], memory[1]), MOST_MEMORY, at_most=True)
        for index, endpoint in enumerate((service, reference)):
            latencies = {
                f"{unit}_{percentile}": median(pair[index][percentile] for pair in pairs)
                for unit, pairs in loads.items()
                for percentile in ("p50", "p99")
            }
            yield Server(endpoint.name, **latencies, memory=memory[index])


def measure_growth(project: Measured, *, at_most: float) -> Figure:
    """Compare what a chat costs, in chats of the pass-through, before and after years of use."""
    with answering(project) as service, passing_through(project) as reference:
        costs = []
        for number, (users, predictions) in enumerate(PASTS):
            _say(f"Filling {project.choice} with {predictions:,} predictions of {users:,} users")
            fill(project, number * FAR_AWAY, users, predictions)
            pairs = _alternate(project, service, reference, "chats")
            rounds = (Round(bare["chats"], ours["chats"]) for ours, bare in pairs)
            costs.append(middle(rounds).ratio)
    before, after = costs
    name = f"cost of a chat after growth, {project.choice}"
    return Figure(name, "bare chats", Round(after, before), at_most, at_most=True)


def measure_log_ins(project: Measured) -> Iterator[Figure]:
    """Compare what many log-ins at once take with the most that they may take."""
    _say(f"Logging {LOG_INS} people in")
    given = people(project, LOG_INS)
    with serving(project, log=project.log("service")) as service:
        job = {
            "url": f"http://127.0.0.1:{service.port}",
            "process_id": service.process.pid,
            "people": given,
        }
        seen = _child(project, "log_ins.py", job)
    memory, stall = (
        Round(seen[name], most) for name, most in (("grown_mib", 150), ("longest_ms", 100))
    )
    yield Figure(f"memory of {LOG_INS} log-ins at once", "MiB", memory, 1.0, at_most=True)
    yield Figure(f"health check beside {LOG_INS} log-ins", "ms", stall, 1.0, at_most=True)


def _start(project: Measured, module: str) -> float:
    """Start an application once, in a new interpreter."""
    settings = {**project.settings, "PYTHONPATH": str(BENCHMARKS)}
    printed = run([project.python, "-m", "start", module], project.directory, settings)
    return float(printed.splitlines()[-1])


def _alternate(
    project: Measured, service: Endpoint, reference: Endpoint, unit: str
) -> list[tuple[Load, Load]]:
    """Load the service and its reference in turns."""
    _say(f"Counting {unit}, {project.choice}")
    return [
        (_load(project, service, unit), _load(project, reference, unit)) for _ in range(LOAD_ROUNDS)
    ]


def _load(project: Measured, endpoint: Endpoint, unit: str) -> Load:
    """Load one server for a while, from a process of its own."""
    job = {
        "url": endpoint.url,
        "credential": endpoint.credential,
        "body": _body(unit),
        "clients": CLIENTS,
        "warm_up_seconds": WARM_UP_SECONDS,
        "seconds": LOAD_SECONDS,
    }
    return _child(project, "load.py", job)


def _child(project: Measured, program: str, job: dict[str, Any]) -> Load:
    """Run a program of this folder with a job, in a process of its own."""
    done = subprocess.run(
        [project.python, BENCHMARKS / program],
        input=json.dumps(job).encode(),
        check=True,
        stdout=subprocess.PIPE,
        timeout=CHILD_SECONDS,
    )
    printed: Load = json.loads(done.stdout)
    return printed


def _body(unit: str) -> dict[str, Any]:
    question = " ".join(["word"] * QUESTION_WORDS[unit])
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": question}]}
    if unit == "chunks":
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)
