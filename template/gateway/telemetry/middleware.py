"""The outermost layer of every request: its id, its size, its log line, its metrics."""

import asyncio
import logging
import re
import time
from functools import partial
from typing import Any

from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ServiceError, StartError, cut_short
from gateway.ids import new_id
from gateway.telemetry import metrics
from gateway.telemetry.context import begin, bind
from gateway.telemetry.logging import log
from gateway.telemetry.scheduler import timed

REQUEST_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
BODY_SECONDS = 30.0
SMALL_BODY_BYTES = 32 * 1024
# Closes the connection, as the rest of a slow body may still arrive.
HANG_UP = {"Connection": "close"}
# Only in logs and metrics: the client disconnected before its request was complete.
CLIENT_LEFT = 499
# A bug. The traceback goes to the log; the client gets only the request's id.
CRASHED = ServiceError("Something went wrong here; tell the operator the X-Request-ID.")


class RequestMiddleware:
    """The outermost middleware. One plain ASGI layer is faster than several of Starlette's."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await timed(self._request(scope, receive, send), partial(_route, scope))
        else:
            await self._app(scope, receive, _plain_failures(send))

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = _request_id(scope)
        fields = begin(request_id=request_id)
        scope.setdefault("state", {})["request_id"] = request_id
        answer = _Answer(send, request_id, scope["state"])
        try:
            await self._app(scope, _Body(scope, receive, self._max_body_bytes), answer)
        except ClientDisconnect:
            answer.status = CLIENT_LEFT
        except asyncio.CancelledError:
            # The process was asked to stop, and the time to finish is over.
            if answer.status:
                raise
            await answer.end()
            await _send_error(cut_short(), scope, receive, answer)
        except Exception as error:
            log(logging.ERROR, "The request crashed", error=error)
            if not answer.status:
                await _send_error(CRASHED, scope, receive, answer)
        finally:
            await answer.end()
            _record(scope, answer.status, time.perf_counter() - started, fields)


class _Body:
    """A `receive` that refuses a body that is too slow, or too large with or without a length."""

    def __init__(self, scope: Scope, receive: Receive, max_bytes: int) -> None:
        announced = dict(scope["headers"]).get(b"content-length", b"")
        # Zeros in front are valid, and `int` refuses too many digits.
        digits = announced.lstrip(b"0")
        self._size = int(digits) if digits.isdigit() else 0
        self._scope = scope
        self._receive = receive
        self._max_bytes = max_bytes
        self._received = 0
        self._complete = False
        self._until = time.monotonic() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        if self._size > self._most:
            raise HTTPException(413)
        try:
            async with asyncio.timeout(self._until - time.monotonic()):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(408, headers=HANG_UP) from error
        self._received += len(message.get("body", b""))
        if self._received > self._most:
            raise HTTPException(413)
        self._complete = not message.get("more_body", False)
        return message

    @property
    def _most(self) -> int:
        """The largest body in bytes. FastAPI's own bodies are small, as it reports every error."""
        route = self._scope.get("route")
        is_read_by_fastapi = getattr(route, "body_field", None) and not hasattr(route, "is_direct")
        return min(self._max_bytes, SMALL_BODY_BYTES) if is_read_by_fastapi else self._max_bytes


class _Answer:
    """A `send` that records the status and adds the request's id.

    If a route has put a `RecordedAnswer` into `state`, it processes each message first.
    """

    def __init__(self, send: Send, request_id: str, state: dict[str, Any]) -> None:
        self._send = send
        self._request_id = request_id
        self._state = state
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            own = (b"x-request-id", self._request_id.encode())
            message = {**message, "headers": [*message["headers"], own]}
        if recorded := self._state.get("answer"):
            message = await recorded.process(message)
        await self._send(message)

    async def end(self) -> None:
        """Mark the outcome as unknown if the answer broke off."""
        if recorded := self._state.get("answer"):
            await recorded.end()


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if REQUEST_ID.fullmatch(given) else new_id("req")


async def _send_error(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    bind(code=error.code)
    await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)


def _route(scope: Scope) -> str:
    """The path template of the matching route."""
    path: str = getattr(scope.get("route"), "path", "unmatched")
    return path


def _record(scope: Scope, status: int, seconds: float, fields: dict[str, Any]) -> None:
    route = _route(scope)
    method = scope["method"] if route != "unmatched" else "ANY"
    metrics.requests.labels(method, route, status).inc()
    metrics.request_seconds.labels(route).observe(seconds)
    log(
        logging.WARNING if status >= 500 else logging.INFO,
        f"{scope['method']} {route} {status or 'disconnected'}",
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
    )


def _plain_failures(send: Send) -> Send:
    """A `send` that reports a `StartError` as a sentence instead of a traceback."""

    async def plain(message: Message) -> None:
        text = message.get("message", "")
        name = f"{StartError.__module__}.{StartError.__name__}: "
        if message["type"] == "lifespan.startup.failed" and name in text:
            message = {**message, "message": text.partition(name)[2].strip()}
        await send(message)

    return plain
