"""HTTP servers of a test's own process, and one that stands in for a deployed service."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

COST = 12_345
# How often a server looks whether it should end.
POLL_SECONDS = 0.01


@dataclass
class Deployed:
    """What the service says, and what it was asked; a test changes the former."""

    url: str = ""
    # Which version runs, or None where nothing does.
    version: Callable[[], str | None] = lambda: "v1.2.3"
    # By path: another status, and another body.
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    # Versions whose generations fail.
    broken: set[str] = field(default_factory=set)
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)

    def answer(self, path: str) -> tuple[int, Any]:
        """What a working service would say, or what was set in its place."""
        version = self.version()
        if version is None:
            return 503, {}
        if path.startswith("/v1/") and version in self.broken:
            return 502, {"error": {"message": "The provider refused the operator's credential."}}
        message = {"role": "assistant", "content": "ready"}
        usual = {
            "/livez": {"status": "ok"},
            "/readyz": {"status": "ready"},
            "/openapi.json": {"info": {"version": version.removeprefix("v")}},
            "/v1/chat/completions": {"choices": [{"message": message}]},
            "/v1/predictions/pred_1": {"id": "pred_1", "cost_nano_usd": COST},
        }
        return self.answers.get(path, (200, usual[path]) if path in usual else (404, {}))


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a port of this machine until the block ends, and yield the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(POLL_SECONDS,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def deployed() -> Iterator[Deployed]:
    """Serve until the end."""
    service = Deployed()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Any) -> None:
            service.asked.append((self.path, self.headers["Authorization"], body))
            status, answer = service.answer(self.path)
            content = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("Location", "/elsewhere")
            self.send_header("X-Prediction-ID", "pred_1")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Keep the terminal for the tests."""

    with http_server(Handler) as service.url:
        yield service
