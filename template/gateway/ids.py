"""Ids with a prefix for their type, which sort by time."""

import datetime as dt
import random
import re
import time

BITS = 60
# Ids are not secret, and the system's random source is several times slower.
_random = random.Random()  # noqa: S311


def new_id(prefix: str) -> str:
    """An id such as `pred_019a…`, in 32 hexadecimal digits.

    12 are milliseconds since 1970, 5 the nanoseconds since then, so that what one process makes
    stays in order (RFC 9562, section 6.2, method 3), and 15 are random.
    """
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    return f"{prefix}_{milliseconds:012x}{nanoseconds:05x}{_random.getrandbits(BITS):015x}"


def pattern(prefix: str) -> re.Pattern[str]:
    """The pattern of the ids that `new_id` makes."""
    return re.compile(f"{prefix}_[0-9a-f]{{32}}")


def id_at(prefix: str, moment: dt.datetime) -> str:
    """A prefix that sorts before all ids made at `moment` or later."""
    return f"{prefix}_{int(moment.timestamp() * 1000):012x}"


def earliest_id(prefix: str, day: dt.date) -> str:
    """A prefix that sorts before all ids made on `day` (UTC) or later."""
    return id_at(prefix, dt.datetime.combine(day, dt.time(), dt.UTC))
