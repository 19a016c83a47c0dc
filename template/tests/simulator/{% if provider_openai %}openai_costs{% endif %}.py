"""OpenAI's costs API: what was billed, by day."""

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from decimal import Decimal

from tests.simulator.exchange import Billed, Exchange, Reply, encode
from tests.simulator.faults import Refusal, RefusedError

# OpenAI's price list: dollars per million tokens of input and of output.
PRICES = {
    "gpt-5": (Decimal("1.25"), Decimal("10.00")),
    "gpt-5-mini": (Decimal("0.25"), Decimal("2.00")),
    "text-embedding-3-small": (Decimal("0.02"), Decimal(0)),
}
_UNLISTED = PRICES["gpt-5-mini"]
_DAY = 86_400

Answer = Callable[[Exchange], Reply]


class Costs:
    """What the simulator billed, by UTC day and model."""

    def __init__(self) -> None:
        self._billed: dict[tuple[int, str], Decimal] = defaultdict(Decimal)

    def of(self, answer: Answer) -> Answer:
        """Let `answer` be billed."""

        def answer_and_bill(exchange: Exchange) -> Reply:
            reply = answer(exchange)
            if reply.billed is not None:
                model = exchange.body["model"]
                self._billed[int(time.time()) // _DAY * _DAY, model] += _usd(model, reply.billed)
            return reply

        return answer_and_bill

    def answer(self, exchange: Exchange) -> Reply:
        """List the costs of whole days; a page holds one model's, so that there are several."""
        first, last = (_time(exchange.query, name) for name in ("start_time", "end_time"))
        costs = [
            (day, usd) for (day, _), usd in sorted(self._billed.items()) if first <= day < last
        ]
        number = int(exchange.query.get("page", "0"))
        more = number + 1 < len(costs)
        return Reply(
            encode(
                {
                    "object": "page",
                    "data": [_bucket(*cost) for cost in costs[number : number + 1]],
                    "has_more": more,
                    "next_page": str(number + 1) if more else None,
                }
            )
        )

    def forget(self) -> None:
        """Begin with no costs."""
        self._billed.clear()


def _usd(model: str, billed: Billed) -> Decimal:
    prices = PRICES.get(model, _UNLISTED)
    tokens = int(billed["input_tokens"]), int(billed["output_tokens"])
    return sum((t * p for t, p in zip(tokens, prices, strict=True)), Decimal(0)) / 1_000_000


def _bucket(day: int, usd: Decimal) -> dict[str, object]:
    amount = {"value": float(usd), "currency": "usd"}
    result = {"object": "organization.costs.result", "amount": amount, "line_item": None}
    times = {"start_time": day, "end_time": day + _DAY}
    return {"object": "bucket", **times, "results": [{**result, "project_id": None}]}


def _time(query: Mapping[str, str], name: str) -> int:
    given = query.get(name, "")
    if not given.isdecimal():
        raise RefusedError(Refusal(400, f"Missing or wrong parameter: '{name}'.", param=name))
    return int(given)
