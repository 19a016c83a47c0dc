"""Costs: exact by the price list, and never above the reserve."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from gateway import pricing
from gateway.prices import Price, Tier
from gateway.providers.base import Usage

MILLION = 1_000_000
counts = st.integers(0, 10**7)
# Of few values, so that limits of tiers are met exactly.
limits = st.sampled_from([1, 2, 10, 1000, 272_000])
inputs = st.one_of(limits, limits.map(lambda limit: limit + 1), counts)
amounts = st.integers(0, 10) | st.integers(0, 10**12)
lines = st.none() | amounts


@st.composite
def price_lists(draw: st.DrawFn) -> Price:
    tiers = [
        Tier(above, draw(amounts), draw(amounts), draw(lines), draw(lines))
        for above in sorted(draw(st.sets(limits, max_size=3)))
    ]
    return Price(
        input=draw(amounts),
        output=draw(amounts),
        second=draw(amounts),
        cached_input=draw(lines),
        cache_write=draw(lines),
        per_output=draw(amounts),
        tiers=tuple(tiers),
    )


@st.composite
def usages(draw: st.DrawFn, most: Usage | None = None) -> Usage:
    """The usage of a call, up to `most`. Its parts fit into the input."""
    if most is None:
        input_tokens, output_tokens = draw(inputs), draw(counts)
        microseconds, outputs = draw(st.integers(0, 10**10)), draw(st.integers(0, 100))
    else:
        input_tokens = draw(st.integers(0, most.input_tokens))
        output_tokens = draw(st.integers(0, most.output_tokens))
        microseconds = draw(st.integers(0, most.microseconds))
        outputs = draw(st.integers(0, most.outputs))
    written = draw(st.integers(0, input_tokens))
    cached = draw(st.integers(0, input_tokens - written))
    return Usage(input_tokens, output_tokens, microseconds, cached, written, outputs)


@st.composite
def bounded(draw: st.DrawFn) -> tuple[Usage, Usage]:
    """A bound, as `pricing.max_usage` states it, and a usage within it."""
    most = Usage(draw(inputs), draw(counts), draw(st.integers(0, 10**10)), outputs=draw(limits))
    return most, draw(usages(most))


def by_the_list(price: Price, usage: Usage) -> Fraction:
    """The sum of a bill in nano-dollars, line by line."""
    tiers = [tier for tier in price.tiers if usage.input_tokens > tier.above]
    row = tiers[-1] if tiers else price
    cached = row.input if row.cached_input is None else row.cached_input
    written = Fraction(5, 4) * row.input if row.cache_write is None else row.cache_write
    plain_tokens = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
    bill = [
        Fraction(plain_tokens * row.input, MILLION),
        Fraction(usage.cached_input_tokens * cached, MILLION),
        Fraction(usage.cache_write_tokens * written, MILLION),
        Fraction(usage.output_tokens * row.output, MILLION),
        Fraction(usage.microseconds * price.second, MILLION),
        Fraction(usage.outputs * price.per_output),
    ]
    return sum(bill, Fraction(0))


@given(price_lists(), usages())
@example(Price(1), Usage(1, cache_write_tokens=1))
@example(Price(2, tiers=(Tier(1000, 4, 0),)), Usage(1000))
def test_a_cost_is_the_price_list_rounded_up_once(price: Price, usage: Usage) -> None:
    cost = pricing.cost(price, usage)
    assert type(cost) is int
    assert cost == ceil(by_the_list(price, usage))


@given(price_lists(), bounded())
@example(Price(10, 10, tiers=(Tier(1, 1, 1),)), (Usage(2, 1), Usage(1, 1)))
@example(Price(1, tiers=(Tier(1, 2, 0),)), (Usage(2), Usage(2, cache_write_tokens=2)))
def test_usage_within_the_bound_costs_no_more_than_its_reserve(
    price: Price, both: tuple[Usage, Usage]
) -> None:
    most, usage = both
    assert pricing.cost(price, usage) <= pricing.max_cost(price, most)


@given(price_lists(), usages())
def test_a_reservation_is_reached_by_some_usage(price: Price, most: Usage) -> None:
    """The reserve is no more than the most expensive lines that can apply."""
    bound = most._replace(cached_input_tokens=0, cache_write_tokens=0)
    ends = {tier.above for tier in price.tiers if tier.above < bound.input_tokens}
    candidates = [
        bound._replace(input_tokens=tokens, **part)
        for tokens in {*ends, bound.input_tokens}
        for part in ({}, {"cached_input_tokens": tokens}, {"cache_write_tokens": tokens})
    ]
    costs = [pricing.cost(price, usage) for usage in candidates]
    assert pricing.max_cost(price, bound) == max(costs)


@given(price_lists(), inputs, counts, counts)
def test_parts_beyond_the_input_are_cut_at_no_discount(
    price: Price, tokens: int, cached: int, written: int
) -> None:
    """The more expensive part counts first, and no token counts twice."""
    usage = Usage(tokens, cached_input_tokens=cached, cache_write_tokens=written)
    cost = pricing.cost(price, usage)
    assert cost <= pricing.max_cost(price, Usage(tokens))
    if cached + written >= tokens:
        most_cached, most_written = min(cached, tokens), min(written, tokens)
        splits = (most_cached, tokens - most_cached), (tokens - most_written, most_written)
        fitting = [
            Usage(tokens, cached_input_tokens=of, cache_write_tokens=rest) for of, rest in splits
        ]
        assert cost == max(pricing.cost(price, each) for each in fitting)


@given(price_lists())
def test_a_price_is_kept_as_it_was(price: Price) -> None:
    kept = from_json(to_json(price.document()))
    assert Price.of(kept) == price


@pytest.mark.parametrize(
    ("kept", "price"),
    [({"input": 1, "output": 2, "second": 3}, Price(1, 2, 3)), ({}, Price())],
    ids=["earlier", "empty"],
)
def test_a_price_of_an_earlier_version_is_read(kept: dict[str, int], price: Price) -> None:
    assert Price.of(kept) == price


def test_a_price_without_new_lines_is_kept_as_earlier_versions_read_it() -> None:
    assert Price(1, 2, 3).document() == {"input": 1, "output": 2, "second": 3}


@pytest.mark.parametrize(
    ("price", "usage", "cost"),
    [
        (Price(1, 0, 0), Usage(1, 0), 1),
        (Price(1, 1, 0), Usage(1, 1), 1),
        (Price(0, 0, 1), Usage(microseconds=1), 1),
        (Price(1, 0, 1), Usage(1, microseconds=1), 1),
        (Price(250_000_000, 2_000_000_000, 0), Usage(2, 5), 10_500),
        (Price(0, 0, 1_500_000), Usage(microseconds=1_500_000), 2_250_000),
        (Price(5, 5, 5), Usage(), 0),
        (Price(per_output=3_000_000), Usage(outputs=4), 12_000_000),
        # The same prompt twice at gpt-6.2-sol: 18,011 tokens written, then read.
        (Price(2 * 10**9, 10**10), Usage(18_011, cache_write_tokens=18_011), 45_027_500),
        (
            Price(2 * 10**9, 10**10, cached_input=10**8),
            Usage(18_011, cached_input_tokens=18_011),
            1_801_100,
        ),
        (Price(MILLION, tiers=(Tier(10, 3 * MILLION, 0),)), Usage(10), 10),
        (Price(MILLION, tiers=(Tier(10, 3 * MILLION, 0),)), Usage(11), 33),
        (Price(MILLION, cached_input=0), Usage(10, cached_input_tokens=10), 0),
        (Price(4 * MILLION), Usage(2, cached_input_tokens=2, cache_write_tokens=1), 9),
    ],
)
def test_cost(price: Price, usage: Usage, cost: int) -> None:
    assert pricing.cost(price, usage) == cost
