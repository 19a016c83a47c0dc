"""For every valid stream, clients of the service and of the provider read the same text."""

import itertools
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import openai
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai._streaming import ServerSentEvent, SSEDecoder

from gateway.circuit_breaker.window import FailureWindow
from gateway.providers.sse import EventParser
from tests.fixtures.service import Start
from tests.replies import STREAMS, USAGE_CHUNK, piece
from tests.support import unique
from tests.upstream import Streaming, streaming

# The rest of a line that has no meaning, or one that does not matter to a chat.
OTHERS = [
    ": comment",
    ":",
    "id: 7",
    "retry: 100",
    "event: message",
    "event: chunk",
    "other: x",
    "x",
]
TEXTS = st.text(
    st.sampled_from('ab \n\r\t"\\:{}\u00e4\u2028\u20ac\U0001f600\ufeff'), min_size=1, max_size=12
)
ENDS = ["\n", "\r", "\r\n"]


@st.composite
def written(draw: st.DrawFn, document: Any) -> str:
    """An event with `document` as its data, in one of all ways to write it."""
    indent = draw(st.sampled_from([None, 0, 1]))
    text = json.dumps(document, ensure_ascii=draw(st.booleans()), indent=indent)
    space = draw(st.sampled_from(["", " "]))
    lines = [f"data:{space}{line}" for line in text.split("\n")]
    for other in draw(st.lists(st.sampled_from(OTHERS), max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), other)
    end = draw(st.sampled_from(ENDS))
    return "".join(line + end for line in (*lines, ""))


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """A chat of a few pieces: comments, all line ends, empty and joined data, any block ends."""
    pieces = [piece({"content": text}) for text in draw(st.lists(TEXTS, max_size=6))]
    parts = [draw(written(each)) for each in (*pieces, piece({}, "stop"), USAGE_CHUNK)]
    for filler in draw(
        st.lists(st.sampled_from([": on\n\n", "\n", ":\r\r", "id: 1\r\n"]), max_size=4)
    ):
        parts.insert(draw(st.integers(0, len(parts))), filler)
    done = ["data: [DONE]\n\n", "data:[DONE]\r\n\r\n", "data: [DONE]", "data: [DONE]\n", ""]
    raw = "".join((*parts, draw(st.sampled_from(done)))).encode()
    if draw(st.booleans()):
        raw = raw[: draw(st.integers(0, len(raw)))]  # no final newline, or much less
    places = draw(st.lists(st.integers(0, len(raw)), max_size=20))
    if draw(st.integers(0, 9)) == 0:
        places = list(range(len(raw)))
    bounds = [0, *sorted(places), len(raw)]
    blocks = [raw[start:end] for start, end in itertools.pairwise(bounds)]
    return [block for block in blocks if block]


class Decoder(SSEDecoder):
    """The official decoder. It also yields events without data, which it cannot parse."""

    def decode(self, line: str) -> ServerSentEvent | None:
        event = super().decode(line)
        return event if event and event.data else None


class Official(AsyncOpenAI):
    """The official client."""

    def _make_sse_decoder(self) -> Decoder:
        return Decoder()


def official_events(blocks: Sequence[bytes]) -> list[tuple[str, str]]:
    """The result of the official decoder, unless the stream ends within a character."""
    events = []
    with suppress(UnicodeDecodeError):
        for event in Decoder().iter_bytes(iter(blocks)):
            events.append((event.event or "", event.data))
    return events


@given(streams())
@hypothesis_settings(max_examples=100)
def test_the_events_are_those_of_the_official_client(blocks: list[bytes]) -> None:
    parser = EventParser()
    own = [(name, data.decode()) for block in blocks for name, data in parser.feed(block)]
    assert own == official_events(blocks)


class Sides(NamedTuple):
    """The provider, and the official client of it and of the service before it."""

    upstream: Streaming
    direct: AsyncOpenAI
    through: AsyncOpenAI


@pytest.fixture
async def sides(start: Start, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sides]:
    # Streams that are cut are the provider's failures, of which there are many here.
    monkeypatch.setattr(FailureWindow, "is_alarming", False)
    async with streaming() as (url, upstream):
        service = await start(openai_base_url=url)
        user = await service.create_user()
        direct = Official(base_url=url, api_key=unique("key"), max_retries=0)
        through = AsyncOpenAI(
            base_url=f"{service.url}/v1",
            api_key=user.credential,
            default_headers=user.headers,
            max_retries=0,
        )
        async with direct, through:
            yield Sides(upstream, direct, through)
        await service.stop()


def said_by(content: object) -> str:
    """The text of content, which a server may also write in parts."""
    return content if isinstance(content, str) else ""


async def text_of(client: AsyncOpenAI) -> tuple[str, bool]:
    """The text that a client reads, and whether the stream ended well for it."""
    pieces: list[str] = []
    try:
        stream = await client.chat.completions.create(
            model="openai/chat", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        async for chunk in stream:
            pieces += [said_by(choice.delta.content) for choice in chunk.choices]
    except (openai.APIError, UnicodeDecodeError):
        return "".join(pieces), False
    return "".join(pieces), True


@given(blocks=streams())
@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_text_is_that_of_the_official_client(blocks: list[bytes], sides: Sides) -> None:
    sides.upstream.blocks = blocks
    expected, _ = await text_of(sides.direct)
    has_ended = any('"stop"' in data for _, data in official_events(blocks))
    assert await text_of(sides.through) == (expected, has_ended)


async def test_the_official_client_reads_the_streams_of_the_field(sides: Sides) -> None:
    for name, reply in STREAMS.items():
        sides.upstream.blocks = [reply.stream]
        assert await text_of(sides.through) == (reply.message.get("content", ""), True), name
