"""What `docker` is for a project's `make image` under act: it checks what it is given.

Images are really built in test_hosts.py. Here a container is the service of the job's own .venv,
which sees what the container would: the variables that it was given, and the folders.
"""

import argparse
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

# It ends as a container does: by itself or when told to, with an exit code that is kept.
SUPERVISE = '"$@" & echo $! > pid; trap "" TERM; wait $!; echo $? > code'


def install(folder: Path) -> Path:
    """Write the stand-in into a folder for `PATH`, and return that."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)
    return folder


def build(arguments: Sequence[str]) -> None:
    """Take a Dockerfile in the current folder, under a tag."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tag", required=True)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args(arguments)
    assert (given.folder / "Dockerfile").read_text(encoding="utf-8").count("FROM ") == 2
    state().mkdir(exist_ok=True)
    (state() / "tag").write_text(given.tag)


def run(arguments: Sequence[str]) -> None:
    """Start a command of the image, in the background, and print the container's name."""
    given = _options_of_run(arguments)
    container = state() / secrets.token_hex(8)
    (container / "data").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    (container / "port").write_text(port)
    assert given.command[0] == "python"
    python = str(Path(".venv/bin/python").absolute())
    within = ["/bin/sh", "-c", f"cd {container}; {SUPERVISE}", "-"]
    with (container / "log").open("wb") as log:
        subprocess.Popen(
            [*within, "env", f"--chdir={Path.cwd()}", python, *given.command[1:]],
            env=_environment(given, container) | {"PORT": port},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    print(container.name)


def port(arguments: Sequence[str]) -> None:
    """Print where the port of a container is reached."""
    name, inside = arguments
    assert inside == "8000/tcp"
    print("127.0.0.1:" + (state() / name / "port").read_text())


def inspect(arguments: Sequence[str]) -> None:
    """Print what is asked for about a container."""
    question, name = arguments
    code = state() / name / "code"
    if question == "--format={{.State.Running}}":
        print("false" if code.exists() else "true")
    else:
        assert question == "--format={{.State.ExitCode}}"
        print(code.read_text().strip())


def logs(arguments: Sequence[str]) -> None:
    """Print what a container printed."""
    (name,) = arguments
    print((state() / name / "log").read_text(encoding="utf-8"))


def stop(arguments: Sequence[str]) -> None:
    """Ask a container to stop, and kill it if it does not in time."""
    option, patience, name = arguments
    assert option == "-t"
    _end(name, signal.SIGTERM)
    deadline = time.monotonic() + float(patience)
    while not (state() / name / "code").exists():
        if time.monotonic() > deadline:
            _end(name, signal.SIGKILL)
        time.sleep(0.05)


def remove(arguments: Sequence[str]) -> None:
    """End a container, if it runs."""
    *options, name = arguments
    assert options == ["--force", "--volumes"]
    if not (state() / name / "code").exists():
        _end(name, signal.SIGKILL)


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "build": build,
    "run": run,
    "port": port,
    "inspect": inspect,
    "logs": logs,
    "stop": stop,
    "rm": remove,
}


def state() -> Path:
    """The folder that stands for Docker's engine: one for each job."""
    return Path(os.environ["RUNNER_TEMP"]) / "docker"


def _options_of_run(arguments: Sequence[str]) -> argparse.Namespace:
    """Read what a container is given; sockets of this machine are open to their owner only."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--detach", action="store_true", required=True)
    parser.add_argument("--publish", required=True)
    parser.add_argument("--tmpfs", required=True)
    parser.add_argument("--user", default="")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--volume", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    assert given.image == (state() / "tag").read_text()
    assert given.publish == "127.0.0.1::8000"
    assert bool(given.volume) == bool(re.fullmatch(r"\d+:\d+", given.user))
    for source, _, target in (volume.partition(":") for volume in given.volume):
        assert source == target
        assert Path(source).is_dir()
    return given


def _environment(given: argparse.Namespace, container: Path) -> dict[str, str]:
    """What the container sees: a folder of its own is a folder of this machine here."""
    inside = given.tmpfs.partition(":")[0]
    variables = dict(map(_variable, given.env))
    assert "DATABASE_URL" in variables
    return {
        name: value.replace(f"{inside}/", f"{container}/data/") for name, value in variables.items()
    }


def _variable(given: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    return name, value if equals else os.environ[name]


def _end(name: str, how: signal.Signals) -> None:
    os.kill(int((state() / name / "pid").read_text()), how)


if __name__ == "__main__":
    COMMANDS[sys.argv[1]](sys.argv[2:])
