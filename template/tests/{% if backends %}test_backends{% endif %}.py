"""`python -m tests.backends -- COMMAND …` stands between a command and who started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

BACKENDS = [sys.executable, "-m", "tests.backends", "--"]


def test_the_exit_code_of_the_command_is_passed_on() -> None:
    done = subprocess.run([*BACKENDS, "sh", "-c", "exit 7"], check=False)

    assert done.returncode == 7


def test_a_command_that_a_signal_ended_says_so_as_a_shell_does() -> None:
    done = subprocess.run([*BACKENDS, "sh", "-c", "kill -s KILL $$"], check=False)

    assert done.returncode == 128 + signal.SIGKILL


def test_a_file_in_another_encoding_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=8001\n", encoding="utf-16")
    command = [*BACKENDS, "true"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (
        1,
        ".env is not in UTF-8: save it again in this encoding.\n",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_command(number: signal.Signals) -> None:
    script = 'trap "echo stopped; exit 3" TERM HUP; echo ready; while :; do sleep 0.05; done'
    with subprocess.Popen([*BACKENDS, "sh", "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        process.send_signal(number)

        assert process.stdout.read() == b"stopped\n"
    assert process.returncode == 3
