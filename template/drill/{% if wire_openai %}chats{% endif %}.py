"""What the drill generates: chats, whose bounds and prices are round numbers."""

import datetime as dt
from typing import Any

from drill.simulator import Upstream

PATH = "/v1/chat/completions"
STREAMS = True
PROMPT = "go"
OUTPUT = 28
# One dollar per million tokens of input, two of output; cached input a tenth of the input's
# price, and a write into the cache 1.25 times it.
INPUT_NANO, OUTPUT_NANO, CACHED_NANO, WRITTEN_NANO = 1000, 2000, 100, 1250
# The bytes of "user" and the prompt, what is around a message, and the largest output.
INPUT = len("user" + PROMPT) + 8
TOKENS = INPUT + OUTPUT
BOUND = INPUT * INPUT_NANO + OUTPUT * OUTPUT_NANO
# "You said: go" for "go": three tokens for one.
USUAL = INPUT_NANO + 3 * OUTPUT_NANO

# The fault with which a call costs its bound.
FULL: dict[str, Any] = {"kind": "full_usage"}

PLANS = f"""
[plans.tokens]
requests_per_minute = 60_000
tokens_per_minute = {12 * TOKENS}
"""
MODEL = """
[models."drill/chat"]
provider = "{provider}"
name = "drill"
kind = "chat"
input_usd_per_million_tokens = {input}
cache_write_usd_per_million_tokens = {input}
output_usd_per_million_tokens = {output}
max_output_tokens = 28
max_input_tokens = 2000
overhead_tokens = 0
base_delay_seconds = 0.1
prices_checked = {today}

[models."drill/cached"]
provider = "{provider}"
name = "drill-cached"
kind = "chat"
input_usd_per_million_tokens = {input}
cached_input_usd_per_million_tokens = {cached}
cache_write_usd_per_million_tokens = {written}
output_usd_per_million_tokens = {output}
max_output_tokens = 28
max_input_tokens = 2000
prices_checked = {today}
"""


def models(provider: str, dearer: int = 1) -> str:
    """The model's declaration, at `dearer` times its price."""
    return MODEL.format(
        provider=provider,
        input=dearer,
        output=2 * dearer,
        cached=f"{0.1 * dearer:.1f}",
        written=1.25 * dearer,
        today=dt.datetime.now(dt.UTC).date(),
    )


def body(**rest: Any) -> dict[str, Any]:
    """A request that costs `BOUND` at most, and usually a tenth of it."""
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": "drill/chat", "messages": messages, "max_tokens": OUTPUT, **rest}


def text(value: str) -> dict[str, Any]:
    """The part of a request that says `value`."""
    return {"messages": [{"role": "user", "content": value}]}


def billed(call: Upstream) -> int:
    """What the provider bills for a call, in nano-dollars."""
    units = call.billed or {}
    cached, written = units.get("cached_input_tokens", 0), units.get("cache_write_tokens", 0)
    cost = (units.get("input_tokens", 0) - cached - written) * INPUT_NANO
    cost += cached * CACHED_NANO + written * WRITTEN_NANO
    return int(cost + units.get("output_tokens", 0) * OUTPUT_NANO)
