"""Divides the usage and cost of a joined call among its requests; the shares add up exactly."""

from collections.abc import Sequence

from gateway import pricing
from gateway.prices import Price
from gateway.providers.base import Usage

Divided = tuple[Sequence[Usage | None], Sequence[int | None]]
"""The usage of each request, and its cost in nano-dollars."""


def divide(price: Price, usage: Usage | None, max_usages: Sequence[Usage]) -> Divided:
    """Divide by maximum usage and cost. Without `usage`, all shares are None."""
    if usage is None:
        nothing = [None] * len(max_usages)
        return nothing, nothing
    most = [pricing.max_cost(price, max_usage) for max_usage in max_usages]
    return usages(usage, max_usages), shares(pricing.cost(price, usage), most)


def usages(usage: Usage, max_usages: Sequence[Usage]) -> list[Usage]:
    """Shares of `usage`. The cached and written tokens of each fit into its input."""
    columns = zip(
        usage[:3], zip(*(max_usage[:3] for max_usage in max_usages), strict=True), strict=True
    )
    inputs, outputs, times = (shares(whole, weights) for whole, weights in columns)
    written = shares(usage.cache_write_tokens, inputs)
    unwritten = [whole - part for whole, part in zip(inputs, written, strict=True)]
    cached = shares(usage.cached_input_tokens, unwritten)
    made = shares(usage.outputs, [max_usage.outputs for max_usage in max_usages])
    each = zip(inputs, outputs, times, cached, written, made, strict=True)
    return [Usage(*values) for values in each]


def shares(whole: int, weights: Sequence[int]) -> list[int]:
    """Parts of `whole` by `weights`, which add up to it: the largest remainders are rounded up.

    No part is above its weight unless `whole` is above their sum.
    """
    total = sum(weights)
    if not total:
        weights, total = [1] * len(weights), len(weights)
    parts = [whole * weight // total for weight in weights]
    remainders = [whole * weight % total for weight in weights]
    order = sorted(range(len(parts)), key=remainders.__getitem__, reverse=True)
    for index in order[: whole - sum(parts)]:
        parts[index] += 1
    return parts
