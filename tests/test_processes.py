"""Processes that the demo, benchmarks and tests start: ready when they say so, gone afterwards."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from processes import ProcessError, announcing, answers, kept_port, listening, run


def python(code: str, *arguments: object) -> list[str]:
    """A command that runs this code."""
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_a_command_returns_what_it_printed(tmp_path: Path) -> None:
    printed = run(python("import os; print(os.getcwd(), os.environ['A'])"), tmp_path, {"A": "b"})
    assert printed == f"{tmp_path} b\n"


def test_a_command_that_fails_shows_its_code_and_output(tmp_path: Path) -> None:
    code = "import sys; print('printed'); sys.stderr.write('told'); sys.exit(3)"
    with pytest.raises(ProcessError, match=r"failed with exit code 3:\nprinted\ntold$"):
        run(python(code), tmp_path, {})


def test_a_command_that_is_not_waited_for_may_clean_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.Popen.communicate", _give_up)
    code = "import signal, sys, time\n"
    code += "signal.signal(15, lambda *_: (open('cleaned', 'w').close(), sys.exit()))\n"
    code += "print(flush=True); time.sleep(600)"
    with pytest.raises(subprocess.TimeoutExpired):
        run(python(code), tmp_path, {})
    assert (tmp_path / "cleaned").exists()


def _give_up(process: subprocess.Popen[str], timeout: float) -> None:
    """Wait until it runs, and no longer."""
    assert process.stdout
    process.stdout.readline()
    raise subprocess.TimeoutExpired(process.args, timeout)


def test_a_server_listens_inside_the_block_only(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with kept_port() as port:
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        is_ready = partial(answers, port, "/")
        with listening(command, tmp_path, {}, log, is_ready) as process:
            assert is_ready()
            assert process.poll() is None
        assert process.poll() is not None
        assert not is_ready()
    assert "GET / HTTP/1.1" in log.read_text(encoding="utf-8")


def test_a_server_that_ends_at_once_shows_its_log(tmp_path: Path) -> None:
    command, log = python("raise SystemExit('no port')"), tmp_path / "log"
    with (
        pytest.raises(ProcessError, match="exit code 1:\nno port"),
        listening(command, tmp_path, {}, log, lambda: False),
    ):
        pytest.fail("It is not ready.")


def test_a_process_that_ends_without_a_line_shows_its_errors(tmp_path: Path) -> None:
    command, log = python("raise SystemExit('no port')"), tmp_path / "log"
    with (
        pytest.raises(ProcessError, match="exit code 1:\nno port"),
        announcing(command, tmp_path, {}, log),
    ):
        pytest.fail("It announced something.")


def test_a_process_that_is_too_slow_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.START_SECONDS", 0.1)
    command, log = python("import time; time.sleep(600)"), tmp_path / "log"
    with pytest.raises(ProcessError), announcing(command, tmp_path, {}, log):
        pytest.fail("It announced something.")


def test_a_process_that_ignores_the_signal_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.STOP_SECONDS", 0.1)
    code = "import os, signal, time; signal.signal(15, signal.SIG_IGN);"
    code += "print(os.getpid(), flush=True); time.sleep(600)"
    with announcing(python(code), tmp_path, {}, tmp_path / "log") as pid:
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
