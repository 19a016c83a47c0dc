"""JSON: strict encoding, tolerant decoding."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.json_text import MAX_LEVELS, decode, encode

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_encoded_json_is_decoded(value: Any) -> None:
    finite = json.loads(json.dumps(value), parse_constant=lambda _: None)
    assert json.loads(encode(value), parse_constant=pytest.fail) == finite
    assert decode(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (rb'"\ud83d"', "\ufffd"),
        (rb'"\ude00x"', "\ufffdx"),
        (rb'"\ud83d\ud83d\ude00"', "\ufffd\U0001f600"),
        (rb'"\ud83d\ude00\\ud83d"', "\U0001f600\\ud83d"),
        (rb'{"\ud83d": ["\ud83d"]}', {"\ufffd": ["\ufffd"]}),
        (b'"\xff\xc3"', "\ufffd\ufffd"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}),
        (b"9" * 5000, None),
        (b"-" + b"9" * 5000, None),
        (b"[" + b"9" * 5000 + b", 1]", [None, 1]),
        (b"123456789012345678901234567890", 123456789012345678901234567890),
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_invalid_json_of_servers_is_decoded(raw: bytes, value: Any) -> None:
    assert decode(raw) == value
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize("raw", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"], ids=ascii)
def test_numbers_that_are_not_finite_become_null(raw: bytes) -> None:
    assert encode(decode(b'{"a": [%b, "\\ud83d"]}' % raw)) == '{"a":[null,"\ufffd"]}'.encode()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{junk", b"[DONE]", b"\xff", b'"\t"', b"1 2", b"nan", b"'a'"], ids=ascii
)
def test_text_that_is_not_json(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(raw)


@pytest.mark.parametrize("text", [b"1", rb'"\ud83d"'], ids=ascii)
def test_json_that_is_too_deep_is_refused(text: bytes) -> None:
    """Decoded JSON can be encoded and decoded again."""
    deepest = b"[" * MAX_LEVELS + text + b"]" * MAX_LEVELS
    assert decode(encode(decode(deepest))) == decode(deepest)
    for levels in (MAX_LEVELS + 1, 100_000):
        with pytest.raises(ValueError, match=r"."):
            decode(b"[" * levels + text + b"]" * levels)
