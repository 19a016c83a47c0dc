"""Build the image and start it as production does: it must get ready, and stop at a signal.

    python scripts/image.py VARIABLE=value VARIABLE …

The variables are the container's; one without a value has that of this process. Needs Docker.
"""

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import unquote
from urllib.request import urlopen

TAG = "app:checked"
START_SECONDS = 60
# Longer than the service gives to what it is answering.
STOP_SECONDS = 30


class ImageError(Exception):
    """What is wrong with the image."""


def docker(*arguments: str) -> str:
    """Run Docker, and return what it printed."""
    done = subprocess.run(["docker", *arguments], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ImageError(f"docker {arguments[0]} failed with exit code {done.returncode}")
    return done.stdout.strip()


@contextmanager
def container(variables: Sequence[str]) -> Iterator[str]:
    """Run the service in the image, and yield the container's id."""
    given = [f"SECRET_KEY={secrets.token_urlsafe(48)}", "ENVIRONMENT=production", *variables]
    environment = [f"--env={variable}" for variable in given]
    options = ["--detach", "--publish=127.0.0.1::8000", "--tmpfs=/data:mode=1777"]
    command = ["python", "-m", "app", "serve", "--migrate"]
    name = docker("run", *options, *environment, *_sockets(variables), TAG, *command)
    try:
        yield name
    except ImageError:
        subprocess.run(["docker", "logs", name], check=False)
        raise
    finally:
        docker("rm", "--force", "--volumes", name)


def wait_until_ready(name: str) -> None:
    """Return once it lives and is ready."""
    address = docker("port", name, "8000/tcp").splitlines()[0]
    deadline = time.monotonic() + START_SECONDS
    while not all(_answers(f"http://{address}{path}") for path in ("/livez", "/readyz")):
        if docker("inspect", "--format={{.State.Running}}", name) != "true":
            raise ImageError("The service ended by itself.")
        if time.monotonic() > deadline:
            raise ImageError(f"The service was not ready within {START_SECONDS} seconds.")
        time.sleep(0.5)


def stop(name: str) -> None:
    """Ask it to stop, as a host does, and see that it did so by itself."""
    docker("stop", "-t", str(STOP_SECONDS), name)
    if (code := docker("inspect", "--format={{.State.ExitCode}}", name)) != "0":
        raise ImageError(f"The service stopped with exit code {code}.")


def main(variables: Sequence[str]) -> int:
    """Return 1, and say what is wrong, if the image does not do."""
    try:
        docker("build", f"--tag={TAG}", ".")
        with container(variables) as name:
            wait_until_ready(name)
            stop(name)
    except ImageError as error:
        print(error, file=sys.stderr)
        return 1
    print("The image builds, gets ready and stops.")
    return 0


def _sockets(variables: Sequence[str]) -> list[str]:
    """Let the container reach the sockets of servers here, which are open to their owner only."""
    urls = [os.environ.get(name, "") for name in variables]
    folders = [unquote(host) for url in urls for host in re.findall(r"[?&]host=([^&]+)", url)]
    folders += [str(Path(url.partition("://")[2]).parent) for url in urls if url.startswith("unix")]
    mounts = [f"--volume={folder}:{folder}" for folder in folders]
    return [*mounts, f"--user={os.getuid()}:{os.getgid()}"] if mounts else []


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):  # noqa: S310
            return True
    except (URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
