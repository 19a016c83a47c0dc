"""The keys that Supabase signs with, read from its server without blocking."""

import asyncio
import logging
import time
from typing import Any

import jwt

from gateway.errors import ProviderError
from gateway.http.web import get_json

logger = logging.getLogger("app")
# Asymmetric ones alone: whoever verifies cannot sign.
ALGORITHMS = ("ES256", "RS256", "EdDSA")
# Supabase lets caches keep its keys for ten minutes.
FRESH_SECONDS = 600.0
# An unknown key id, which anybody can make up, asks the server this often at most.
PAUSE_SECONDS = 30.0


class SigningKeys:
    """Keeps keys, and reads them again when they are old or an id is unknown.

    Serves with the known keys while the server is down.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def get(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; None if there is none.

        Raises `ProviderError` if no key was ever read.
        """
        age = time.monotonic() - self._asked_at
        known = self._keys.get(key_id)
        if known is not None:
            if age > FRESH_SECONDS:
                self._start()
            return known
        if age > PAUSE_SECONDS:
            self._start()
        if self._reading is not None:
            await asyncio.shield(self._reading)
        if not self._keys:
            raise ProviderError("Supabase's keys could not be read. Try again later.")
        return self._keys.get(key_id)

    def _start(self) -> None:
        if self._reading is None:
            self._asked_at = time.monotonic()
            self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            self._keys = _parse(await get_json(self._url)) or self._keys
        except ProviderError as error:
            logger.warning("Supabase's keys could not be read: %s", type(error.__cause__).__name__)
        finally:
            self._reading = None


def _parse(document: Any) -> dict[str, jwt.PyJWK]:
    """The keys of a JSON Web Key Set (RFC 7517) that can be used, by id."""
    entries = document.get("keys", []) if isinstance(document, dict) else []
    found = {}
    for entry in entries if isinstance(entries, list) else []:
        try:
            key = jwt.PyJWK.from_dict(entry)
        except (jwt.PyJWTError, TypeError, ValueError, AttributeError):
            continue
        if key.key_id and key.algorithm_name in ALGORITHMS:
            found[key.key_id] = key
    return found
