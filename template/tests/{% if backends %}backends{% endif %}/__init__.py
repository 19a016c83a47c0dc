"""Servers for development and tests, without Docker; they end with what started them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ending_with_us(pid: int, signal: str) -> Iterator[None]:
    """Send `signal` to `pid` when the block ends, or when this process does, even if killed.

    A shell waits for the end of a pipe that only this process holds open, in a session of its own:
    what ends this process and its group does not end the shell.
    """
    command = ["/bin/sh", "-c", f"read _; kill -s {signal} {pid} 2>/dev/null"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True):
        yield
