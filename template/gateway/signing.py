"""Short signatures with `SECRET_KEY`, which can be rotated without breaking what was signed."""

import base64
import binascii
import hashlib
import hmac

from gateway.config import GatewayConfig


class Signer:
    """Signs with the first key and accepts every key (`SECRET_KEY`, then `SECRET_KEY_PREVIOUS`)."""

    def __init__(self, *keys: str) -> None:
        self._keys = [key.encode() for key in keys if key]

    def digest(self, purpose: str, message: bytes) -> bytes:
        """A keyed digest of 32 bytes; `purpose` keeps one use from passing for another."""
        return _mac(self._keys[0], purpose, message)

    def sign(self, purpose: str, text: str) -> str:
        """`text` as an opaque token for URLs."""
        message = text.encode()
        token = self.digest(purpose, message)[:9] + message
        return base64.urlsafe_b64encode(token).decode().rstrip("=")

    def verify(self, purpose: str, token: str) -> str | None:
        """The signed text, or nothing when `token` was not signed here."""
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        for key in self._keys:
            if hmac.compare_digest(_mac(key, purpose, raw[9:])[:9], raw[:9]):
                return raw[9:].decode()
        return None


def signer(config: GatewayConfig) -> Signer:
    return Signer(*secret_keys(config))


def secret_keys(config: GatewayConfig) -> tuple[str, str]:
    """The key in use, and the one before, which may be empty."""
    return config.secret_key.get_secret_value(), config.secret_key_previous.get_secret_value()


def _mac(key: bytes, purpose: str, message: bytes) -> bytes:
    return hmac.digest(key, purpose.encode() + b"\0" + message, hashlib.sha256)
