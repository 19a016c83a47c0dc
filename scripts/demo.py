"""`make demo`: from a clone to a streamed answer, without an account, a key or Docker.

Renders the service with its default answers, installs and starts it, and asks it one question as
its first user. Then it serves until Ctrl-C; with CI=true it stops after the answer.
"""

import json
import os
import re
import signal
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
from processes import ProcessError, run
from projects import Project, serving
from working_tree import ROOT, preview

PROJECT = ROOT / "build" / "demo"
LOG = ROOT / "build" / "demo.log"
QUESTION = "What does this service protect me from?"
ANSWER_SECONDS = 30


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
    except (StepError, ProcessError, CopierError, OSError, SubprocessError, HTTPException) as error:
        return f"The demo stopped: {error}"
    return None


def _demo() -> None:
    _say("Rendering a service with the default answers into build/demo")
    preview(PROJECT, {"project_name": "Demo"})
    environment = _environment()
    _say("Installing it (make setup)")
    run(["make", "--no-print-directory", "setup"], PROJECT, environment, seconds=None)
    project = Project(PROJECT, PROJECT / ".venv/bin/python", environment)
    project.run("app", "migrate")
    _say("Starting it")
    with serving(project, log=LOG) as service:
        _ask(service.port, project.create_user("demo@example.com"))
        print(f"Console: http://127.0.0.1:{service.port}/", flush=True)
        if os.environ.get("CI") != "true":
            _say("Serving until Ctrl-C; its log is build/demo.log")
            # A signal just before an endless wait would be seen after it.
            while (code := service.process.poll()) is None:
                time.sleep(0.2)
            raise StepError(f"the service ended with exit code {code}; see build/demo.log.")


def _environment() -> dict[str, str]:
    """Leave out what would point the demo at another database, provider or run of make."""
    example = (PROJECT / ".env.example").read_text(encoding="utf-8")
    settings = set(re.findall(r"^#? ?([A-Z_]+)=", example, flags=re.MULTILINE))
    ours = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", "VIRTUAL_ENV"}
    return {name: value for name, value in os.environ.items() if name not in settings | ours}


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
