"""Encryption with `SECRET_KEY`. After a rotation, older messages can still be opened."""

import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic_core import to_json

from gateway.signing import derive

NONCE_BYTES = 12


class Sealer:
    """Seals with the first secret, and opens what was sealed with any of them (`SECRET_KEY`, then
    `SECRET_KEY_PREVIOUS`): AES-256-GCM with keys derived for one `purpose`.
    """

    def __init__(self, purpose: str, *secret_keys: str) -> None:
        self._ciphers = [AESGCM(derive(purpose, key)) for key in secret_keys if key]

    def seal(self, message: bytes, *about: str) -> bytes:
        """`message`, encrypted and bound to `about`: `open` needs the same texts."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._ciphers[0].encrypt(nonce, message, to_json(about))

    def open(self, sealed: bytes, *about: str) -> bytes | None:
        """The message; None if no secret opens it, or `about` differs."""
        nonce, encrypted = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(nonce, encrypted, to_json(about))
            except (InvalidTag, ValueError):  # ValueError: too short to be sealed.
                continue
        return None
