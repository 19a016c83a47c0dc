"""Requests to a provider's server: bounded in time and size, and no redirect is followed."""

import json
from collections.abc import Mapping
from typing import Any

import aiohttp

from gateway.errors import ProviderError
from gateway.json_text import decode
from gateway.providers.http import open_session

SECONDS = 10.0
MAX_BYTES = 1024 * 1024
NO_ANSWER = "The provider to sign in with does not answer as it should. Try again later."
FORM = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Accept": "application/json", "Content-Type": "application/json"}
# RFC 6749: a refused code is answered with one of these and an object that names the error.
REFUSED = frozenset({400, 401})


async def get_json(url: str, token: str = "", *, absent: bool = False) -> Any:
    """The JSON at an address; None for 403 and 404 if it may be `absent`.

    Raises `ProviderError`.
    """
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    status, answer = await _ask("GET", url, headers, None)
    if absent and status in {403, 404}:
        return None
    if status != 200:
        raise ProviderError(NO_ANSWER)
    return answer


async def post_form(url: str, headers: Mapping[str, str], body: str) -> Mapping[str, Any]:
    """The JSON object that answers a form, also one with an error. Raises `ProviderError`."""
    status, answer = await _ask("POST", url, {**FORM, **headers}, body)
    if not isinstance(answer, dict) or (status != 200 and status not in REFUSED):
        raise ProviderError(NO_ANSWER)
    if status != 200:
        answer.setdefault("error", "refused")
    return answer


async def post_json(
    url: str, headers: Mapping[str, str], body: Mapping[str, str]
) -> tuple[int, Mapping[str, Any]]:
    """Status and JSON object of an answer below 500. Raises `ProviderError`."""
    status, answer = await _ask("POST", url, {**JSON, **headers}, json.dumps(body))
    if not isinstance(answer, dict):
        raise ProviderError(NO_ANSWER)
    return status, answer


async def _ask(
    method: str, url: str, headers: Mapping[str, str], body: str | None
) -> tuple[int, Any]:
    timeout = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            open_session() as session,
            session.request(
                method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
            ) as response,
        ):
            raw = await _read(response.content)
            return response.status, decode(raw) if response.status < 500 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise ProviderError(NO_ANSWER) from error


async def _read(content: aiohttp.StreamReader) -> bytes:
    raw = bytearray()
    async for chunk in content.iter_any():
        raw += chunk
        if len(raw) > MAX_BYTES:
            raise ValueError("the answer is too large")
    return bytes(raw)
