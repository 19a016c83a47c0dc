"""Ids with a type prefix that sort by the time they were made."""

import secrets
import time


def new_id(prefix: str) -> str:
    """An id such as `pred_019a…`: milliseconds in 12 hexadecimal digits, then 80 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
