"""Keyed digests with `SECRET_KEY`."""

import hashlib
import hmac


class Signer:
    """Makes digests with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def digest(self, purpose: str, message: bytes) -> bytes:
        """A keyed digest of 32 bytes; `purpose` keeps one use from passing for another."""
        return hmac.digest(self._key, purpose.encode() + b"\0" + message, hashlib.sha256)
