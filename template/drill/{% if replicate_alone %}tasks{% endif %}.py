"""What the drill generates: tasks that are billed by the second."""

import datetime as dt
from typing import Any

from drill.simulator import Upstream

PATH = "/v1/predictions"
STREAMS = False
# What the simulator's tasks usually take, and the most that this one may: ten times of it.
USUAL_MICROSECONDS, SECONDS = 1_500_000, 15
NANO_PER_SECOND = 1_000_000
USUAL = USUAL_MICROSECONDS
BOUND = SECONDS * NANO_PER_SECOND

# The fault with which a call costs its bound.
FULL: dict[str, Any] = {"kind": "full_usage", "seconds": SECONDS}

# Tasks have no tokens.
PLANS = ""
MODEL = """
[models."drill/task"]
provider = "{provider}"
name = "drill/task"
kind = "task"
usd_per_second = {usd}
max_seconds = 15
base_delay_seconds = 0.1
prices_checked = {today}
"""


def models(provider: str, dearer: int = 1) -> str:
    """The model's declaration, at `dearer` times its price."""
    usd = f"0.00{dearer}"
    return MODEL.format(provider=provider, usd=usd, today=dt.datetime.now(dt.UTC).date())


def body(**rest: Any) -> dict[str, Any]:
    """A request that costs `BOUND` at most, and usually a tenth of it."""
    return {"model": "drill/task", "input": {"prompt": "go"}, **rest}


def text(value: str) -> dict[str, Any]:
    """The part of a request that says `value`."""
    return {"input": {"prompt": value}}


def billed(call: Upstream) -> int:
    """What the provider bills for a call, in nano-dollars."""
    return int((call.billed or {}).get("seconds", 0) * NANO_PER_SECOND)
