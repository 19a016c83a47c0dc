"""Ids: their form, and their order."""

import time
from itertools import count

import pytest

from gateway.ids import new_id, pattern


def test_ids_of_one_millisecond_are_in_the_order_in_which_they_were_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As entries of the audit that one transaction makes."""
    moments = count(1_893_456_000_000_000_000, 999)
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    ids = [new_id("aud") for _ in range(1000)]
    assert ids == sorted(ids)
    assert len({made[:16] for made in ids}) == 1  # the same millisecond
    assert all(pattern("aud").fullmatch(made) for made in ids)
    assert len(set(ids)) == 1000
