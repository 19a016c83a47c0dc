"""A provider's cache of prompts."""

from functools import partial
from typing import Any

from sqlalchemy import Row

from drill.environment import Environment, tally
from drill.guarantees import guarantee
from drill.wiring import work


@guarantee(
    "A cached prompt is billed by the price list: its tokens as written, then as read",
    "3 times ok; written 40, read 40 of 120 tokens; paid is what the provider billed",
)
async def cached_prompt(environment: Environment) -> str:
    user = await environment.create_user("roomy", "cached")
    for kind in ("cache_write", "cache_read"):
        await environment.simulator.queue(kind, 1)
    messages = [{"role": "user", "content": "go " * 40}]
    ask = partial(environment.ask, user, model="drill/cached", messages=messages)
    answers = [await ask() for _ in range(3)]
    calls, records = await environment.simulator.calls(), await environment.predictions(user)
    paid = sum(attempt.cost_nano_usd for attempt in await environment.attempts(user))
    counts = [sum(column) for column in zip(*map(_input_of, records), strict=True)]
    billed = sum(map(work.billed, calls))
    books = "paid is what the provider billed" if paid == billed else f"paid {paid} of {billed}"
    return f"{tally(answers)}; written {counts[2]}, read {counts[1]} of {counts[0]} tokens; {books}"


def _input_of(record: Row[Any]) -> tuple[int, int, int]:
    return record.input_tokens, record.cached_input_tokens, record.cache_write_tokens
