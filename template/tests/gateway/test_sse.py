"""Server-sent events, by the rules of the WHATWG."""

import itertools
import operator
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers import sse
from gateway.providers.base import BadAnswer
from gateway.providers.sse import Event, EventParser

FIELDS = [
    b"data: one",
    b"data:two",
    b"data:  three ",
    b"data",
    b"data:",
    b'data: {"a": 1}',
    "data: \u00fc\U0001f600\u2028".encode(),
    b"data: \xff\xc3",
    b"event: named",
    b"event",
    b"id: 1",
    b"retry: 10",
    b": comment",
    b":",
    b"other: x",
    b" data: no",
    b"Data: no",
    b"",
]
lines = st.lists(st.tuples(st.sampled_from(FIELDS), st.sampled_from([b"\n", b"\r", b"\r\n"])))


def read(blocks: Sequence[bytes]) -> list[Event]:
    parser = EventParser()
    return [event for block in blocks for event in parser.feed(block)]


def cut(raw: bytes, places: Sequence[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(raw) + 1) for place in places), len(raw)]
    return [raw[start:end] for start, end in itertools.pairwise(bounds)]


def model(raw: bytes) -> list[Event]:
    """The steps of the standard, on the complete stream."""
    text = raw.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    name, data, events = b"", b"", []
    for line in text.split(b"\n")[:-1]:
        if not line:
            if data not in {b"", b"\n"}:
                events.append((name.decode(errors="replace"), data[:-1]))
            name, data = b"", b""
            continue
        field, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if field == b"data":
            data += value + b"\n"
        elif field == b"event":
            name = value
    return events


@given(lines, st.booleans(), st.booleans(), st.lists(st.integers(0, 10_000), max_size=12))
def test_events_are_those_of_the_standard(
    given: list[tuple[bytes, bytes]], mark: bool, whole: bool, places: list[int]
) -> None:
    raw = b"\xef\xbb\xbf" * mark + b"".join(line + end for line, end in given)
    raw += b"\n\n" if whole else b"data: not complete"
    assert read(cut(raw, places)) == model(raw)
    assert read([bytes([byte]) for byte in raw]) == model(raw)


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: a\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\ndata\n\n", [("", b"\n")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("", b"b")]),
        (b"event: x\n\ndata: b\n\n", [("", b"b")]),
        (b"data: a\n\n\n\n\ndata: b\n\n", [("", b"a"), ("", b"b")]),
        (b"data: a\n\ndata: \xef\xbb\xbfb\n\n", [("", b"a"), ("", b"\xef\xbb\xbfb")]),
        (b"data: a\n", []),
        (b"data: a", []),
        (b"", []),
    ],
    ids=ascii,
)
def test_examples(raw: bytes, events: list[Event]) -> None:
    for blocks in ([raw], [raw[:1], raw[1:]], [raw, b""], [b"", raw]):
        assert read(blocks) == events


@pytest.mark.parametrize(
    "raw",
    [
        b"data: " + b"x" * 200,
        b"data: " + b"x" * 200 + b"\n\n",
        b"data: x\n" * 40,
        b"event: " + b"x" * 200,
        b"data: a\n\ndata: " + b"x" * 200 + b"\n\n",
    ],
    ids=len,
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_that_is_too_long_is_an_error(
    raw: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES", 100)
    with pytest.raises(BadAnswer, match="too long"):
        read([raw[place : place + size] for place in range(0, len(raw), size)])


@pytest.mark.parametrize("size", [1, 7, 250, 100_000])
def test_many_short_events_are_none(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES", 100)
    raw = (b": comment\n\n" * 20 + b"data: " + b"x" * 60 + b"\r\n\r\n") * 20
    events = read([raw[place : place + size] for place in range(0, len(raw), size)])
    assert events == [("", b"x" * 60)] * 20


def work(blocks: Sequence[bytes]) -> int:
    """The executed lines of Python, and the bytes that they join."""
    steps = 0

    def count(frame: object, kind: str, _: object) -> object:
        nonlocal steps
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)  # type: ignore[arg-type]
    try:
        read(blocks)
    finally:
        sys.settrace(before)
    return steps


@pytest.mark.parametrize("form", [b"data: %s\n\n", b"%s", b"data: %s\n"])
def test_the_work_is_linear(form: bytes) -> None:
    """The work is linear in the blocks of an event and in its lines."""
    short, long = ([form % b"x" * count] for count in (200, 2000))
    assert work(long) < 11 * work(short)
    short, long = ([form % b"x"] * count for count in (200, 2000))
    assert work(long) < 11 * work(short)


def test_the_pieces_of_an_event_are_joined_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parser, blocks = EventParser(), [b"x" * 1000] * 500
    parser.feed(b"data: ")
    for block in blocks:
        parser.feed(block)
    # Each block is still the object that came.
    assert all(map(operator.is_, parser._pieces[1:], blocks))
    assert parser.feed(b"\n\n") == [("", b"x" * 500_000)]
