"""Keyed digests with `SECRET_KEY`, and keys derived from it."""

import hashlib
import hmac

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32


def derive(purpose: str, secret_key: str) -> bytes:
    """A key of 32 bytes for one purpose (HKDF, RFC 5869). It does not reveal `secret_key`."""
    kdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose.encode())
    return kdf.derive(secret_key.encode())


class Signer:
    """Makes digests with one key."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def digest(self, purpose: str, message: bytes) -> bytes:
        """A keyed digest of 32 bytes; `purpose` keeps one use from passing for another."""
        return hmac.digest(self._key, purpose.encode() + b"\0" + message, hashlib.sha256)
