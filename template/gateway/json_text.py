"""Encodes JSON strictly, and decodes it tolerantly.

Encoded JSON is valid for any parser: a number that is not finite becomes `null`. A provider's JSON
may be invalid.
"""

import json
from contextlib import suppress
from typing import Any

from pydantic_core import from_json, to_json

# The depth that `from_json` can read: stored JSON must be readable.
MAX_LEVELS = 200
MAX_DIGITS = 4300


def encode(value: Any) -> bytes:
    """`value` as JSON."""
    return to_json(value, inf_nan_mode="null")


def decode(raw: bytes) -> Any:
    """The value of JSON text. Raises `ValueError`.

    Bytes that are not UTF-8 and lone surrogates become U+FFFD. An integer with too many digits
    becomes None.
    """
    with suppress(ValueError):
        return from_json(raw)
    try:
        value = json.loads(raw.decode("utf-8-sig", "replace"), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("too deep") from error
    return _mended(value, MAX_LEVELS)


def _whole(digits: str) -> int | None:
    return int(digits) if len(digits) <= MAX_DIGITS else None


def _mended(value: Any, levels: int) -> Any:
    """`value` without lone surrogates."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not isinstance(value, list | dict):
        return value
    if not levels:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [_mended(item, levels - 1) for item in value]
    return {_mended(name, 0): _mended(item, levels - 1) for name, item in value.items()}
