"""Run a command, then print its processor time: user and system, all that it started included."""

import ctypes
import os
import subprocess
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
LINGERING_SECONDS = 5.0


def main(command: list[str]) -> int:
    """Return the command's exit code."""
    if sys.platform == "linux":
        # Servers that detach themselves become children of this process, which counts them.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.monotonic()
    process = subprocess.Popen(command)
    seconds, code = 0.0, None
    while code is None:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except KeyboardInterrupt:
            continue  # the command got it too
        seconds += usage.ru_utime + usage.ru_stime
        if pid == process.pid:
            code = process.returncode = os.waitstatus_to_exitcode(status)
    seconds += _of_those_that_linger()
    elapsed = time.monotonic() - started
    print(f"Processor time: {seconds / 60:.1f} minutes, in {elapsed / 60:.1f} minutes.")
    return code


def _of_those_that_linger() -> float:
    """Return the processor seconds of servers that stop in a moment."""
    seconds, deadline = 0.0, time.monotonic() + LINGERING_SECONDS
    while time.monotonic() < deadline:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid:
            seconds += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.05)
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
