"""The arithmetic that every limiter follows."""

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.rate_limits.base import MINUTE, Bucket, BucketStatus, fits, given_back, leaked

CAPACITIES = st.integers(1, 10_000)


@st.composite
def levels(draw: st.DrawFn) -> BucketStatus:
    """A bucket as it can stand, and units that it may be asked for."""
    capacity = draw(CAPACITIES)
    take = draw(st.integers(1, capacity))
    level = draw(st.integers(0, capacity * MINUTE))
    return BucketStatus(Bucket("requests", "key", capacity, take), level)


@given(levels())
def test_the_remaining_units_can_be_taken_and_no_more(state: BucketStatus) -> None:
    assert 0 <= state.remaining <= state.bucket.capacity
    assert fits(state.bucket, state.level) == (state.bucket.take <= state.remaining)
    assert (state.wait_seconds == 0) == fits(state.bucket, state.level)


@given(levels())
def test_after_the_wait_in_whole_seconds_it_fits(state: BucketStatus) -> None:
    elapsed = math.ceil(state.wait_seconds) * 1_000_000
    assert fits(state.bucket, leaked(state.bucket, state.level, elapsed))


@given(levels())
def test_the_wait_is_no_longer_than_needed(state: BucketStatus) -> None:
    early = math.ceil(state.wait_seconds * 1e6) - 2
    if early >= 0:
        assert not fits(state.bucket, leaked(state.bucket, state.level, early))


@given(levels())
def test_after_the_reset_all_is_there(state: BucketStatus) -> None:
    assert 0 <= state.reset_seconds <= 60
    elapsed = math.ceil(state.reset_seconds) * 1_000_000
    assert leaked(state.bucket, state.level, elapsed) == 0


@given(levels(), st.integers(0, 10**9), st.integers(0, 10**9))
def test_a_level_sinks_the_same_in_one_step_or_in_two(
    state: BucketStatus, one: int, two: int
) -> None:
    at_once = leaked(state.bucket, state.level, one + two)
    assert at_once == leaked(state.bucket, leaked(state.bucket, state.level, one), two)
    assert 0 <= at_once <= state.level


@given(CAPACITIES)
def test_a_minute_brings_back_the_whole_capacity(capacity: int) -> None:
    full = Bucket("requests", "key", capacity)
    assert leaked(full, capacity * MINUTE, MINUTE) == 0
    assert leaked(full, capacity * MINUTE, MINUTE - 1) > 0


@given(levels())
def test_what_was_taken_and_given_back_was_never_taken(state: BucketStatus) -> None:
    bucket, level = state
    assert given_back(bucket, level + bucket.take * MINUTE) == level
    assert 0 <= given_back(bucket, level) <= level
