"""Processes of the demo, the benchmarks and the tests: run to their end, or until a block ends."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from threading import Timer
from typing import Any

# All that is taken over from the shell, where a setting of the service may lie about.
INHERITED = ("PATH", "HOME", "TMPDIR", "LANG")
START_SECONDS = 60
STEP_SECONDS = 120
STOP_SECONDS = 30
POLL_SECONDS = 0.05
# Of a failed process's output, the end that an error message shows.
SHOWN_CHARACTERS = 8000

Command = Sequence[str | Path]


class ProcessError(Exception):
    """A process failed; the message has its command, its exit code and the end of its output."""


def clean_environment() -> dict[str, str]:
    """Take over from the shell what programs need, and no setting."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def on_memory_disk() -> dict[str, str]:
    """Tell a program to keep its temporary files in memory, where this machine offers that.

    A disk that others fill stalls for seconds, which a service must take for an outage.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a folder's own name is made by the program
    return {"TMPDIR": str(memory)} if os.access(memory, os.W_OK) else {}


def run(
    command: Command,
    directory: Path,
    environment: Mapping[str, str],
    seconds: float | None = STEP_SECONDS,
) -> str:
    """Run a command to its end, and return its standard output.

    Raises `ProcessError` if it fails, and `subprocess.TimeoutExpired` if it takes longer.
    """
    with (
        subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        _stopping(process),
    ):
        output, errors = process.communicate(timeout=seconds)
    if process.returncode:
        raise _failure(process, output + errors)
    return output


@contextmanager
def listening(
    command: Command,
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    is_ready: Callable[[], bool],
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server from when it is ready until the block ends; its output goes to `log`."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
        _stopping(process),
    ):
        wait_until_ready(process, is_ready, log)
        yield process


@contextmanager
def announcing(
    command: Command, directory: Path, environment: Mapping[str, str], log: Path
) -> Iterator[Any]:
    """Run what prints one line of JSON when it is ready; yield that until the block ends.

    Its standard input ends when this process does, even if killed. Its errors go to `log`.
    """
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        ) as process,
        _stopping(process),
    ):
        line = _first_line(process)
        if not line:
            process.wait(STOP_SECONDS)
            raise _failure(process, log.read_text(encoding="utf-8"))
        yield json.loads(line)


def wait_until_ready(
    process: subprocess.Popen[bytes], is_ready: Callable[[], bool], log: Path
) -> None:
    """Return once `is_ready` says so. Raises `ProcessError` if the process ends, or is too slow."""
    deadline = time.monotonic() + START_SECONDS
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise _failure(process, log.read_text(encoding="utf-8"))
        time.sleep(POLL_SECONDS)


def answers(port: int, path: str = "/readyz") -> bool:
    """Whether a server of this machine answers 200 at a path."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine that the system gives to no other program until the block ends.

    It is kept by sockets that are bound and do not listen: a server that asks for this very port,
    as servers do with SO_REUSEADDR, gets it. Until then a connection is refused.
    """
    with ExitStack() as stack:
        port = _bound(stack, socket.AF_INET, "127.0.0.1", 0)
        with suppress(OSError):  # A machine without IPv6, or another's port there.
            _bound(stack, socket.AF_INET6, "::1", port)
        yield port


def _bound(stack: ExitStack, family: socket.AddressFamily, host: str, port: int) -> int:
    keeper = stack.enter_context(socket.socket(family))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, port))
    return int(keeper.getsockname()[1])


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Read it; a process that is too slow is killed, and then this is empty."""
    patience = Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        return process.stdout.readline() if process.stdout else b""
    finally:
        patience.cancel()


@contextmanager
def _stopping(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Terminate a process when the block ends; kill one that is too slow."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _failure(process: subprocess.Popen[Any], output: str) -> ProcessError:
    command: Any = process.args  # a list, as all commands here are
    name = " ".join(map(str, command))
    code = process.poll()
    what = "was not ready in time" if code is None else f"failed with exit code {code}"
    return ProcessError(f"`{name}` {what}:\n{output[-SHOWN_CHARACTERS:]}")
