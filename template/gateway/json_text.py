"""JSON as this service writes it, and as it reads what others write.

What we send or keep is JSON that any parser takes: a number that is not finite is `null`. What a
provider sends may be less than that.
"""

import json
from typing import Any

from pydantic_core import from_json, to_json

# As deep as `from_json` reads: what is kept must be read again.
MAX_LEVELS = 200
MAX_DIGITS = 4300


def encode(value: Any) -> bytes:
    """`value` as JSON."""
    return to_json(value, inf_nan_mode="null")


def decode(raw: bytes) -> Any:
    """The value of JSON text. Raises `ValueError`.

    Bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD, and an integer that is too
    large to be read becomes None.
    """
    try:
        return from_json(raw)
    except ValueError:
        return _tolerant(raw)


def _tolerant(raw: bytes) -> Any:
    try:
        value = json.loads(raw.decode("utf-8-sig", "replace"), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("too deep") from error
    return _mended(value, MAX_LEVELS)


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _mended(value: Any, levels: int) -> Any:
    """`value` without halves of surrogate pairs."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not isinstance(value, list | dict):
        return value
    if not levels:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [_mended(item, levels - 1) for item in value]
    return {_mended(name, 0): _mended(item, levels - 1) for name, item in value.items()}
