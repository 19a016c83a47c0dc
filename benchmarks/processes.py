"""Child processes: each is ended, by its own id, by what started it."""

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from typing import Any

START_SECONDS = 30
STOP_SECONDS = 15

Command = Sequence[str | Path]


class ChildError(Exception):
    """A process did not do what it was started for; the message names its log."""


@contextmanager
def announcing(
    command: Command, directory: Path, environment: Mapping[str, str], log: Path
) -> Iterator[dict[str, Any]]:
    """Run what prints one line of JSON when it is ready; yield that until the block ends."""
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
        _ended(process),
    ):
        line = _first_line(process)
        if not line:
            raise ChildError(f"{_name(command)} did not start; see {log}")
        yield json.loads(line)


@contextmanager
def listening(
    command: Command,
    directory: Path,
    environment: Mapping[str, str],
    log: Path,
    port: int,
) -> Iterator[int]:
    """Run a server; yield its process id from when it listens until the block ends."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, cwd=directory, env=environment, stdout=output, stderr=subprocess.STDOUT
        ) as process,
        _ended(process),
    ):
        deadline = time.monotonic() + START_SECONDS
        while not _is_open(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise ChildError(f"{_name(command)} did not start; see {log}")
            time.sleep(0.05)
        yield process.pid


def resident_memory(process_id: int) -> float | None:
    """Read how much memory a process holds now, in MiB; None where there is no /proc."""
    try:
        status = Path(f"/proc/{process_id}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    kibibytes = re.search(r"(?m)^VmRSS:\s*(\d+) kB$", status)
    return int(kibibytes[1]) / 1024 if kibibytes else None


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    """Wait for it; nothing comes of a process that ends, or is too slow and then ended, before."""
    patience = Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        return process.stdout.readline() if process.stdout else b""
    finally:
        patience.cancel()


@contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()


def _is_open(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def _name(command: Command) -> str:
    return " ".join(map(str, command))
