"""Posts alerts to `ALERT_WEBHOOK_URL`, signed, so that the receiver can verify the sender."""

import asyncio
import datetime as dt
import hashlib
import hmac
import secrets
import time
from typing import Any

import aiohttp
from pydantic_core import to_json

from gateway.signing import Signer

TRIES = 3
TRY_SECONDS = 10
PAUSE_SECONDS = 1.0
# The time of all tries and the pauses between them.
MAX_SECONDS = TRIES * TRY_SECONDS + 1.5 * PAUSE_SECONDS * sum(range(TRIES))


class Webhook:
    """The owner's webhook. Its address may hold a token, so it is in no log and no error."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str) -> None:
        self._http = http
        self._url = url
        self._key = key

    async def post(
        self, alert_id: str, kind: str, at: dt.datetime, details: dict[str, Any]
    ) -> str | None:
        """Post an alert, up to TRIES times. Returns the problem, or None if it was accepted."""
        body = to_json({"id": alert_id, "kind": kind, "at": at, "details": details})
        problem = await self._try(body)
        for number in range(1, TRIES):
            if problem is not None:
                await asyncio.sleep(PAUSE_SECONDS * number * (0.5 + secrets.randbelow(100) / 100))
                problem = await self._try(body)
        return problem

    async def _try(self, body: bytes) -> str | None:
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "X-Timestamp": timestamp,
            "X-Signature": f"sha256={signature(self._key, timestamp, body)}",
        }
        try:
            async with (
                asyncio.timeout(TRY_SECONDS),
                self._http.post(
                    self._url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return None if response.status in range(200, 300) else f"status {response.status}"
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            return type(error).__name__


def signing_key(secret_key: str) -> str:
    """The key with which the receiver checks signatures; it does not reveal `SECRET_KEY`."""
    return Signer(secret_key).digest("alert webhook", b"").hex()


def signature(key: str, timestamp: str, body: bytes) -> str:
    """The HMAC-SHA256 of `<timestamp>.<body>`, in hexadecimal digits."""
    return hmac.digest(key.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hex()
