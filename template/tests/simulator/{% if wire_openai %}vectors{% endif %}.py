"""Embeddings that depend only on the text and survive any encoding unchanged."""

import base64
import struct
from hashlib import sha256
from itertools import cycle, islice

DIMENSIONS = 8


def embed(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Make a vector of multiples of 1/128 in [-1, 1): exact as decimal and as 32-bit float."""
    digest = sha256(text.encode()).digest()
    return [byte / 128 - 1 for byte in islice(cycle(digest), dimensions)]


def to_base64(vector: list[float]) -> str:
    """Pack it as little-endian 32-bit floats, as `encoding_format: base64` asks."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
