"""Ids with a type prefix that sort by the time they were made."""

import secrets
import time

# Crockford's base 32, in lower case: no letters that are mistaken for others.
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def new_id(prefix: str) -> str:
    """An id such as `pred_01jd…`: 48 bits of milliseconds, then 80 random bits (as a ULID)."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return f"{prefix}_" + "".join(ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
