"""Ids with a type prefix that sort by the time they were made."""

import datetime as dt
import random
import re
import time

BITS = 80
# An id is no secret, and to ask the system for each takes several times longer.
_random = random.Random()  # noqa: S311


def new_id(prefix: str) -> str:
    """An id such as `pred_019a…`: milliseconds in 12 hexadecimal digits, then 80 random bits."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{_random.getrandbits(BITS):020x}"


def pattern(prefix: str) -> re.Pattern[str]:
    """What every id that `new_id` makes matches."""
    return re.compile(f"{prefix}_[0-9a-f]{{32}}")


def id_at(prefix: str, moment: dt.datetime) -> str:
    """What every id that was made at `moment` or later sorts after."""
    return f"{prefix}_{int(moment.timestamp() * 1000):012x}"


def earliest_id(prefix: str, day: dt.date) -> str:
    """What every id that was made on `day` (UTC) or later sorts after."""
    return id_at(prefix, dt.datetime.combine(day, dt.time(), dt.UTC))
