"""The HTTP session that all providers share, and the mapping of its errors."""

import asyncio
import email.utils
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from pydantic_core import to_json

from gateway import json_text
from gateway.providers.base import BadAnswer, Blame, ProviderFailure, ProviderRequest, Quota
from gateway.providers.error_answers import MAX_REASON_CHARS, ErrorTable, read_error, seconds

CONNECT_SECONDS = 5
CONNECTIONS = 1000
# A connection buffers about twice as much if its caller does not read.
READ_BYTES = 64 * 1024
# The longest possible answer: vectors of a few thousand texts, as decimal numbers.
ANSWER_BYTES = 128 * 1024 * 1024
ERROR_BYTES = 64 * 1024

QUOTAS = ("requests", "tokens")
MAX_DIGITS = 15
# A duration as OpenAI writes it: 20ms, 1s, 6m0s.
DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)
RATE_LIMIT = re.compile(r";\s*r=0\s*;\s*t=(\d{1,6})\b")
UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
Hint = Callable[[Mapping[str, Any]], float | None]


def open_session() -> aiohttp.ClientSession:
    """A new session. Its only time-out is that of a connection: the gateway keeps deadlines."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BYTES,
    )


class Http:
    """Requests to one provider. All methods raise `ProviderFailure`.

    `hint` finds the pause, in seconds, in the body of an error.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token: str,
        errors: ErrorTable,
        hint: Hint = lambda _: None,
    ) -> None:
        self._session = session
        self.base_url = base_url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if token:  # A local server may need none.
            self._headers["Authorization"] = f"Bearer {token}"
        self._errors = errors
        self._hint = hint

    @asynccontextmanager
    async def request(
        self, request: ProviderRequest, method: str, url: str, json: Any = None, **headers: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response with a status below 300.

        Refuses a URL of another host, which a provider's answer may contain, and redirects.
        """
        if urlsplit(url)[:2] != urlsplit(self.base_url)[:2]:
            raise BadAnswer("the provider points to another host")
        headers = {**self._headers, **headers}
        try:
            async with await self.send(request, method, url, json, headers) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise ProviderFailure("no connection", billed=False) from error
        except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError) as error:
            message = f"connection lost ({type(error).__name__})"
            raise ProviderFailure(message, billed=None if request.sent else False) from error
        except ValueError as error:
            if request.sent:
                raise
            # Characters that a header or a URL cannot hold.
            message = f"the request could not be built ({type(error).__name__})"
            raise ProviderFailure(message, blame=Blame.OPERATOR, billed=False) from error

    async def send(
        self, request: ProviderRequest, method: str, url: str, json: Any, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Send a request and return its response if its status is below 300."""
        response = await self._session.request(
            method,
            url,
            data=None if json is None else _Payload(to_json(json), request),
            headers=headers,
            allow_redirects=False,
        )
        request.quota, request.quota_at = quota(response.headers), time.monotonic()
        if response.status >= 300:
            async with response:
                raise await self._failure(response, request.quota)
        return response

    async def json(
        self, request: ProviderRequest, method: str, url: str, json: Any = None, **headers: str
    ) -> Any:
        """The JSON document of an answer."""
        async with self.request(request, method, url, json, **headers) as response:
            return decode(await read(response))

    def failure_of(
        self, document: Any, status: int | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> ProviderFailure:
        """The failure that an error body describes.

        Without an HTTP error `status`, the status in the body counts, if there is one.
        """
        answer = read_error(document)
        status = status or answer.status
        case = self._errors.case(status, answer)
        details = document if isinstance(document, dict) else {}
        pause = retry_after(headers) or answer.retry_after or self._hint(details)
        return ProviderFailure(
            f"status {status}" if status else "the answer is an error",
            status=status,
            retry_after=pause,
            billed=case.billed,
            param=answer.param,
            blame=case.blame,
            code=answer.code,
            reason=answer.reason,
            should_retry=headers.get("x-should-retry") != "false",
        )

    async def _failure(
        self, response: aiohttp.ClientResponse, left: Quota | None
    ) -> ProviderFailure:
        """The failure that an error answer describes."""
        body = await _beginning(response, ERROR_BYTES)
        try:
            document = json_text.decode(body)
        except ValueError:
            document = _plain_text(body)
        failure = self.failure_of(document, response.status, response.headers)
        failure.retry_after = failure.retry_after or (left and left.reset_seconds) or None
        return failure


class _Payload(aiohttp.BytesPayload):
    """A body that marks its request as sent when it is read: it may be billed from then on."""

    def __init__(self, body: bytes, request: ProviderRequest) -> None:
        super().__init__(body)
        self._request = request

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        self._request.sent = True
        await super().write_with_length(writer, content_length)


def _plain_text(body: bytes) -> str | None:
    """A short text without markup, such as `Not Found`."""
    text = body[:MAX_REASON_CHARS].decode("utf-8", "replace")
    return None if "<" in text else text


async def read(response: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. Raises `BadAnswer` if it is too long."""
    body = await _beginning(response, ANSWER_BYTES)
    check_length(len(body))
    return body


def check_length(received: int) -> None:
    """Raise `BadAnswer` if more bytes were `received` than an answer may have."""
    if received > ANSWER_BYTES:
        raise BadAnswer("the answer is too long")


async def _beginning(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body, or a little more than its first `most` bytes."""
    blocks, received = [], 0
    while received <= most and (block := await response.content.readany()):
        blocks.append(block)
        received += len(block)
    return b"".join(blocks)


def decode(raw: bytes) -> Any:
    """The JSON document of `raw`. Raises `BadAnswer`; the provider may bill such an answer."""
    try:
        return json_text.decode(raw)
    except ValueError as error:
        raise BadAnswer("the answer is not JSON") from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The pause in seconds that the headers ask for, or None.

    Reads `retry-after-ms`, which OpenAI sends, then `Retry-After` in seconds, also in fractions,
    or as a date (RFC 9110, section 10.2.3), then `RateLimit: "api";r=0;t=55`
    (draft-ietf-httpapi-ratelimit-headers).
    """
    if milliseconds := seconds(headers.get("retry-after-ms")):
        return milliseconds / 1000
    value = headers.get("Retry-After", "")
    if pause := seconds(value):
        return pause
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        found = RATE_LIMIT.search(headers.get("RateLimit", ""))
        return float(found[1]) if found else None


def quota(headers: Mapping[str, str]) -> Quota | None:
    """The quota of OpenAI's headers `x-ratelimit-remaining-…` and `x-ratelimit-reset-…`, if any."""
    requests, tokens = (_count(headers.get(f"x-ratelimit-remaining-{name}", "")) for name in QUOTAS)
    if requests is None and tokens is None:
        return None
    used_up = [name for name, left in zip(QUOTAS, (requests, tokens), strict=True) if left == 0]
    resets = [duration(headers.get(f"x-ratelimit-reset-{name}", "")) or 0.0 for name in used_up]
    return Quota(requests, tokens, max(resets, default=0.0))


def duration(text: str) -> float | None:
    """The seconds of a duration such as `6m0s`; None for another text."""
    if not text or DURATION.sub("", text):
        return None
    return sum(float(number) * UNITS[unit] for number, unit in DURATION.findall(text))


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None
