"""Print the seconds from the import of an application until it is ready: `python -m start MODULE`.

Ready means that the lifespan has started and `/readyz` answers 200. What Python itself and asyncio
need to start is left out.
"""

import asyncio
import importlib
import sys
import time
from collections.abc import MutableMapping
from typing import Any

Message = MutableMapping[str, Any]


async def main(module: str) -> float:
    """Import `module`, start what its `create_app` makes, and return how long that took."""
    started = time.perf_counter()
    app = importlib.import_module(module).create_app()
    async with app.router.lifespan_context(app):
        status = await _get(app, "/readyz")
        seconds = time.perf_counter() - started
    if status != 200:
        raise SystemExit(f"{module} is not ready: /readyz answers {status}.")
    return seconds


async def _get(app: Any, path: str) -> int:
    """Call an ASGI application without a server; return the status."""
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    status: int = sent[0]["status"]
    return status


if __name__ == "__main__":
    print(asyncio.run(main(sys.argv[1])))
