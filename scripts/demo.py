"""`make demo`: from a clone to a streamed answer, without an account, a key or Docker.

Renders the service with its default answers, installs and starts it, and asks it one question as
its first user. Then it serves until Ctrl-C; with CI=true it stops after the answer.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse
from subprocess import SubprocessError
from typing import Any

from copier.errors import CopierError
from ports import kept_port
from working_tree import ROOT, preview

PROJECT = ROOT / "build" / "demo"
LOG = ROOT / "build" / "demo.log"
QUESTION = "What does this service protect me from?"
START_SECONDS = 30
ANSWER_SECONDS = 30
STOP_SECONDS = 15


class StepError(Exception):
    """A step of the demo failed; the message says which, and what to look at."""


def main() -> str | None:
    """Run the demo, and return what went wrong."""
    for number in (signal.SIGINT, signal.SIGTERM):  # ignored where a shell started it in its back
        signal.signal(number, signal.default_int_handler)
    try:
        _demo()
    except KeyboardInterrupt:
        print("\nStopped.")
    except (StepError, CopierError, OSError, SubprocessError, HTTPException) as error:
        return f"The demo stopped: {error}"
    return None


def _demo() -> None:
    _say("Rendering a service with the default answers into build/demo")
    preview(PROJECT, {"project_name": "Demo"})
    environment = _environment()
    _say("Installing it (make setup)")
    _run(["make", "--no-print-directory", "setup"], environment)
    _run(_app("migrate"), environment)
    with kept_port() as port, _serving(port, environment) as service:
        created = _run(
            _app("users", "create", "--email", "demo@example.com", "--json"), environment
        )
        _ask(port, json.loads(created)["credential"])
        print(f"Console: http://127.0.0.1:{port}/", flush=True)
        if os.environ.get("CI") != "true":
            _say("Serving until Ctrl-C; its log is build/demo.log")
            # A signal just before an endless wait would be seen after it.
            while (code := service.poll()) is None:
                time.sleep(0.2)
            raise StepError(f"the service ended with exit code {code}; see build/demo.log.")


def _environment() -> dict[str, str]:
    """Leave out what would point the demo at another database, provider or run of make."""
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    settings = set(re.findall(r"^#? ?([A-Z_]+)=", example, flags=re.MULTILINE))
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in settings | ours}


def _app(*arguments: str) -> list[str]:
    return [str(PROJECT / ".venv" / "bin" / "python"), "-m", "app", *arguments]


def _run(command: list[str], environment: dict[str, str]) -> str:
    """Run one step to its end, and return what it printed."""
    result = subprocess.run(
        command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    if result.returncode:
        print(result.stdout, file=sys.stderr)
        raise StepError(
            f"`{' '.join(command)}` failed with exit code {result.returncode}; its output is above."
        )
    return result.stdout


@contextmanager
def _serving(port: int, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service, from when it is ready until the block ends."""
    _say(f"Starting it on http://127.0.0.1:{port}/")
    with (
        LOG.open("w", encoding="utf-8") as log,
        subprocess.Popen(
            _app("serve"),
            cwd=PROJECT,
            env=environment | {"PORT": str(port)},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as service,
    ):
        try:
            _wait_until_ready(service, port)
            yield service
        finally:
            service.terminate()
            try:
                service.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()


def _wait_until_ready(service: subprocess.Popen[bytes], port: int) -> None:
    for _ in range(START_SECONDS * 10):
        try:
            code = service.wait(0.1)
        except subprocess.TimeoutExpired:
            if _is_ready(port):
                return
        else:
            raise StepError(
                f"the service ended with exit code {code}:\n{LOG.read_text(encoding='utf-8')}"
            )
    raise StepError(f"the service was not ready after {START_SECONDS} seconds; see build/demo.log.")


def _is_ready(port: int) -> bool:
    try:
        with _request(port, "GET", "/readyz") as response:
            return response.status == HTTPStatus.OK
    except OSError:
        return False


def _ask(port: int, credential: str) -> None:
    """Ask the offline provider; print the answer as it arrives, then what it cost."""
    authorization = {"Authorization": f"Bearer {credential}"}
    body = {
        "model": "offline/echo",
        "stream": True,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    _say(f"Asking offline/echo: {QUESTION}")
    with _request(port, "POST", "/v1/chat/completions", authorization, body) as response:
        if response.status != HTTPStatus.OK:
            raise StepError(
                f"the question was answered with {response.status}: {response.read().decode()}"
            )
        for text in _deltas(response):
            print(text, end="", flush=True)
        headers = response.headers
    _tell_cost(port, authorization, headers)


def _tell_cost(port: int, authorization: dict[str, str], answer: Message) -> None:
    """Print what an answer with these headers cost, and what it left of the limits."""
    path = f"/v1/predictions/{answer['X-Prediction-ID']}"
    with _request(port, "GET", path, authorization) as response:
        cost = json.loads(response.read())["cost_nano_usd"]
    print(f"\n\nCost: {cost:,} nano-dollars (${cost / 1e9:.9f})")
    for kind in ("requests", "tokens"):
        if limit := answer[f"x-ratelimit-limit-{kind}"]:
            left = answer[f"x-ratelimit-remaining-{kind}"]
            print(f"Left of the limits: {left} of {limit} {kind} a minute")


def _deltas(stream: HTTPResponse) -> Iterator[str]:
    """Yield the pieces of text of a stream of chat completion chunks."""
    for line in stream:
        data = line.decode().removeprefix("data: ").strip()
        if data == "[DONE]":
            return
        if data:
            chunk: dict[str, Any] = json.loads(data)
            if "error" in chunk:
                raise StepError(f"the answer broke off: {chunk['error']['message']}")
            yield from (choice["delta"].get("content") or "" for choice in chunk["choices"])
    raise StepError("the answer broke off; see build/demo.log.")


@contextmanager
def _request(
    port: int, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
) -> Iterator[HTTPResponse]:
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(
            method, path, content, {"Content-Type": "application/json"} | (headers or {})
        )
        yield connection.getresponse()
    finally:
        connection.close()


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
