"""Lets browser applications of other origins call the API, where `CORS_ORIGINS` names them.

They send their own `Authorization` header. What a browser adds by itself, as cookies and stored
passwords, is never allowed (`Access-Control-Allow-Credentials` is not sent), so that no page acts
in the name of a user whose browser is logged in here. https://fetch.spec.whatwg.org/#cors-protocol
"""

from collections.abc import Collection, Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.addresses import EVERY

SIMPLE_METHODS = {"GET", "HEAD", "POST"}
METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
# The answer headers that scripts may read, besides those that browsers always show.
EXPOSED = b", ".join(
    (
        *(b"X-Request-ID", b"X-Prediction-ID", b"x-served-model"),
        *(b"x-ratelimit-limit-requests", b"x-ratelimit-limit-tokens"),
        *(b"x-ratelimit-remaining-requests", b"x-ratelimit-remaining-tokens"),
        *(b"x-ratelimit-reset-requests", b"x-ratelimit-reset-tokens"),
        *(b"Retry-After", b"x-should-retry", b"Idempotent-Replayed", b"Location"),
    )
)
# For how long a browser need not ask again, in seconds.
MAX_AGE = b"600"
ASKED_METHOD = b"access-control-request-method"
ASKED_HEADERS = b"access-control-request-headers"


def asks_before(method: str, headers: Mapping[str, str]) -> bool:
    """Whether a browser that sends this across origins has asked before whether it may."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    return method not in SIMPLE_METHODS or content_type == "application/json"


class SharedAnswers:
    """The outermost layer: errors of all others have its headers too."""

    def __init__(self, app: ASGIApp, allowed: Collection[str]) -> None:
        self._app = app
        self._allowed = {origin.encode() for origin in allowed}
        self._every = EVERY in allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = self._headers(dict(scope["headers"]).get(b"origin"))

        async def share(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *added]}
            await send(message)

        await self._app(scope, receive, share)

    def _headers(self, origin: bytes | None) -> list[tuple[bytes, bytes]]:
        exposed = (b"access-control-expose-headers", EXPOSED)
        if self._every:
            return [(b"access-control-allow-origin", b"*"), exposed]
        # What is kept between here and the browser must not be given to another origin.
        vary = (b"vary", b"Origin")
        if origin not in self._allowed:
            return [vary]
        return [vary, (b"access-control-allow-origin", origin), exposed]


class Preflights:
    """Answers what a browser asks before it sends a request, which bears no credential yet.

    Every origin gets the same answer: without `SharedAnswers`' header it allows nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            headers = dict(scope["headers"])
            if b"origin" in headers and ASKED_METHOD in headers:
                response = Response(status_code=204)
                response.raw_headers = [
                    (b"access-control-allow-methods", METHODS),
                    (b"access-control-allow-headers", headers.get(ASKED_HEADERS, b"")),
                    (b"access-control-max-age", MAX_AGE),
                ]
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)
