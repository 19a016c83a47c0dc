"""`gateway/pipeline/retry.py`: which failures are retried, after which pause, how often.

`test_attempts.py` has retries and fallbacks in the running service.
"""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.pipeline.retry import Retries
from gateway.policy import Model
from gateway.providers.base import BadAnswer, Deadline, ProviderFailure
from tests.support import POLICY

BUSY = ProviderFailure("busy", status=503)
HOUR = Deadline(3600)
# What a drawn pause is of the longest that could have been drawn.
parts = st.floats(0, 1)
seconds = st.floats(0, 120)


def part(share: float) -> Callable[[float, float], float]:
    """Draws always the same part of the way from one number to another."""
    return lambda low, high: low + share * (high - low)


def model(attempts: int = 10, base: float = 0.5) -> Model:
    declared = POLICY["offline/echo"]
    return Model.model_validate(
        {**declared, "attempts": attempts, "base_delay_seconds": base, "id": "offline/echo"}
    )


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529, None])
def test_transient_failures_are_retried(status: int | None) -> None:
    failure = ProviderFailure("it failed", status=status)
    assert Retries().pause(model(), 1, failure, HOUR) is not None


@pytest.mark.parametrize("status", [302, 400, 401, 402, 403, 404, 413, 422])
def test_permanent_failures_are_not_retried(status: int) -> None:
    failure = ProviderFailure("refused", status=status, retry_after=1)
    assert Retries().pause(model(), 1, failure, HOUR) is None


def test_an_invalid_answer_is_not_retried() -> None:
    assert Retries().pause(model(), 1, BadAnswer("not JSON"), HOUR) is None


def test_remote_work_that_may_run_is_not_started_again() -> None:
    assert Retries().pause(model(), 1, BUSY, HOUR, remote_id="p1") is None


@given(st.integers(1, 10))
def test_a_model_has_its_number_of_attempts(attempts: int) -> None:
    allowed = [Retries().pause(model(attempts), n, BUSY, HOUR) for n in range(1, attempts + 1)]
    assert [pause is not None for pause in allowed] == [True] * (attempts - 1) + [False]


@given(st.integers(1, 9), st.floats(0.001, 60), parts, seconds)
def test_a_pause_is_anything_up_to_its_length_after_what_was_asked_for(
    number: int, base: float, share: float, told: float
) -> None:
    failure = ProviderFailure("busy", status=429, retry_after=told)
    pause = Retries(part(share)).pause(model(base=base), number, failure, Deadline(10**6))
    assert pause == pytest.approx(told + share * base * 2 ** (number - 1))


def test_pauses_differ() -> None:
    retries = Retries()
    assert len({retries.pause(model(), 1, BUSY, HOUR) for _ in range(5)}) == 5


@given(st.integers(1, 9), st.floats(0.001, 60), parts, seconds, seconds)
def test_no_pause_reaches_the_deadline(
    number: int, base: float, share: float, told: float, left: float
) -> None:
    deadline = Deadline(left)
    failure = ProviderFailure("busy", status=503, retry_after=told)
    pause = Retries(part(share)).pause(model(base=base), number, failure, deadline)
    if pause is not None:
        assert told <= pause < left
    else:
        assert told + share * base * 2 ** (number - 1) >= deadline.remaining


@given(st.lists(st.booleans(), max_size=400))
def test_retries_are_a_share_of_the_first_attempts(calls: list[bool]) -> None:
    """Ten at once, and then one for every ten first attempts, whatever fails when."""
    retries, firsts, tried = Retries(), 0, 0
    for is_first in calls:
        if is_first:
            retries.first()
            firsts += 1
        else:
            tried += retries.pause(model(), 1, BUSY, HOUR) is not None
        assert tried <= 10 + firsts / 10


def test_a_spent_budget_comes_back_with_first_attempts() -> None:
    retries = Retries()
    while retries.pause(model(), 1, BUSY, HOUR) is not None:
        pass
    for _ in range(10):
        assert retries.pause(model(), 1, BUSY, HOUR) is None
        retries.first()
    assert retries.pause(model(), 1, BUSY, HOUR) is not None
    assert retries.pause(model(), 1, BUSY, HOUR) is None


def test_the_retry_budget_saves_at_most_ten_retries() -> None:
    retries = Retries()
    for _ in range(1000):
        retries.first()
    assert [retries.pause(model(), 1, BUSY, HOUR) is None for _ in range(11)] == [False] * 10 + [
        True
    ]


def test_a_refused_retry_costs_no_budget() -> None:
    retries = Retries()
    for _ in range(50):
        assert retries.pause(model(), 1, BUSY, Deadline(0)) is None
    assert retries.pause(model(), 1, BUSY, HOUR) is not None
