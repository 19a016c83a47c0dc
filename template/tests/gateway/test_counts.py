"""Counts in sentences agree with their nouns."""

import pytest

from gateway.counts import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 tokens"), (1, "1 token"), (2, "2 tokens"), (1000, "1000 tokens")]
)
def test_a_count_and_its_noun(number: int, text: str) -> None:
    assert counted(number, "token") == text
