"""What a provider's headers say that is left of its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.base import Quota
from gateway.providers.http import duration, quota

numbers = st.integers(0, 10_000)


def headers(requests: str, tokens: str, *resets: str) -> dict[str, str]:
    names = [
        f"x-ratelimit-{what}-{unit}"
        for what in ("remaining", "reset")
        for unit in ("requests", "tokens")
    ]
    return dict(zip(names, (requests, tokens, *resets), strict=False))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1),
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1.5s", 1.5),
        ("7m12s", 432),
        ("1h2m3.25s", 3723.25),
        ("1d2h", 93_600),
        ("0s", 0),
        ("60", None),
        ("s", None),
        ("soon", None),
        ("1s later", None),
        ("-1s", None),
        ("1e9s", None),
        ("", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert duration(text) == seconds


@given(numbers, numbers, numbers, numbers)
def test_the_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int, parts: int) -> None:
    told = duration(f"{hours}h{minutes}m{seconds}s{parts}ms")
    assert told == pytest.approx(hours * 3600 + minutes * 60 + seconds + parts / 1000)


@given(st.text())
def test_no_header_is_an_error(text: str) -> None:
    told = quota(headers(text, text, text, text))
    assert told is None or told.reset_seconds >= 0


@pytest.mark.parametrize(
    ("given_headers", "told"),
    [
        ({}, None),
        (headers("many", "-1"), None),
        (headers("9", "8"), Quota(9, 8, 0)),
        (headers("9", "8", "6m0s", "1s"), Quota(9, 8, 0)),
        (headers("0", "8", "6m0s", "1s"), Quota(0, 8, 360)),
        (headers("9", "0", "6m0s", "1s"), Quota(9, 0, 1)),
        (headers("0", "0", "6m0s", "1s"), Quota(0, 0, 360)),
        (headers("0", "0", "1s", "6m0s"), Quota(0, 0, 360)),
        (headers("0", "", "1s", "6m0s"), Quota(0, None, 1)),
        (headers("0", "8", "soon", "1s"), Quota(0, 8, 0)),
    ],
)
def test_the_pause_is_the_reset_of_what_is_used_up(
    given_headers: dict[str, str], told: Quota | None
) -> None:
    assert quota(given_headers) == told
