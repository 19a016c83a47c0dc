"""A provider's cache of prompts."""

from functools import partial
from typing import Any

from sqlalchemy import Row

from drill.environment import Scene, tally
from drill.guarantees import promise
from drill.wiring import work


@promise(
    "A cached prompt is billed by the price list: its tokens as written, then as read",
    "3 times ok; written 40, read 40 of 120 tokens; paid is what the provider billed",
)
async def cached_prompt(scene: Scene) -> str:
    user = await scene.create_user("roomy", "cached")
    for kind in ("cache_write", "cache_read"):
        await scene.simulator.queue(kind, 1)
    messages = [{"role": "user", "content": "go " * 40}]
    ask = partial(scene.ask, user, model="drill/cached", messages=messages)
    answers = [await ask() for _ in range(3)]
    calls, records = await scene.simulator.calls(), await scene.predictions(user)
    paid = sum(attempt.cost_nano_usd for attempt in await scene.attempts(user))
    told = [sum(column) for column in zip(*map(_input_of, records), strict=True)]
    billed = sum(map(work.billed, calls))
    books = "paid is what the provider billed" if paid == billed else f"paid {paid} of {billed}"
    return f"{tally(answers)}; written {told[2]}, read {told[1]} of {told[0]} tokens; {books}"


def _input_of(record: Row[Any]) -> tuple[int, int, int]:
    return record.input_tokens, record.cached_input_tokens, record.cache_write_tokens
