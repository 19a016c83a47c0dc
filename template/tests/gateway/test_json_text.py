"""JSON as it is written, and as it is read of others."""

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
def test_what_is_written_is_read(value: Any) -> None:
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
def test_what_servers_write_is_read(raw: bytes, value: Any) -> None:
    assert decode(raw) == value
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize("raw", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999"], ids=ascii)
def test_what_is_not_finite_is_written_as_null(raw: bytes) -> None:
    assert encode(decode(b'{"a": [%b, "\\ud83d"]}' % raw)) == '{"a":[null,"\ufffd"]}'.encode()


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{junk", b"[DONE]", b"\xff", b'"\t"', b"1 2", b"nan", b"'a'"], ids=ascii
)
def test_what_is_no_json(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(raw)


@pytest.mark.parametrize("text", [b"1", rb'"\ud83d"'], ids=ascii)
def test_what_is_too_deep_is_refused(text: bytes) -> None:
    """What is read can be written, and read again."""
    deepest = b"[" * MAX_LEVELS + text + b"]" * MAX_LEVELS
    assert decode(encode(decode(deepest))) == decode(deepest)
    for levels in (MAX_LEVELS + 1, 100_000):
        with pytest.raises(ValueError, match=r"."):
            decode(b"[" * levels + text + b"]" * levels)
