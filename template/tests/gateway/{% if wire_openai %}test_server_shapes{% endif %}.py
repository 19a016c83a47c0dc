"""Chats of servers with their own variants of OpenAI's format."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from sqlalchemy import Column, Table, select

from gateway.db.tables import attempts, predictions
from gateway.providers import openai_wire
from gateway.providers import sse as parser
from tests.fixtures.service import Start
from tests.replies import (
    DONE,
    HELLO,
    SPOKEN,
    STOP,
    STREAMS,
    USAGE,
    USAGE_CHUNK,
    call,
    chunk,
    event,
    piece,
    stream,
)
from tests.simulator.wiring import FORMATS
from tests.support import POLICY, Service, chat, error_of, said, sse
from tests.upstream import StreamEnd, Streaming, streaming

PATH = "/v1/chat/completions"
VARIABLES = {each.name: each.variable.lower() for each in FORMATS}
ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", **SPOKEN}, "finish_reason": "stop"}],
    "usage": USAGE,
}


@pytest.fixture(params=[name for name in POLICY if name.endswith("/chat")])
def model(request: pytest.FixtureRequest) -> str:
    """The chat model of each chosen provider in turn."""
    chosen: str = request.param
    return chosen


class Asked:
    """A service with scripted answers of its provider, and its answer to the latest chat."""

    def __init__(self, service: Service, model: str, upstream: Streaming) -> None:
        self.model = model
        self._service = service
        self._upstream = upstream
        self._client: httpx2.AsyncClient | None = None
        self.response: httpx2.Response

    @property
    def calls(self) -> int:
        """How often the provider was asked."""
        return self._upstream.calls

    async def stream(self, *blocks: bytes, ending: StreamEnd = "close", **rest: Any) -> None:
        """Ask for a stream, of which the provider sends `blocks`."""
        self._upstream.blocks, self._upstream.ending = blocks, ending
        if self._client is None:
            self._client = self._service.client(await self._service.create_user())
        self.response = await self._client.post(PATH, json=chat(model=self.model, **rest))

    async def ask(self, answer: Any, **rest: Any) -> None:
        """Request an answer without streaming."""
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        await self.stream(raw, stream=False, **rest)

    @property
    def chunks(self) -> list[Any]:
        """The chunks of a stream that ended well."""
        *chunks, done = sse(self.response.text)
        assert done == "[DONE]"
        return chunks

    async def prediction(self) -> Any:
        """The record."""
        return await self._row(predictions, predictions.c.id)

    async def message(self) -> dict[str, Any]:
        """The message in the record, without its role."""
        (choice, *_) = (await self.prediction()).output["choices"]
        message: dict[str, Any] = choice["message"]
        return {name: value for name, value in message.items() if name != "role"}

    async def books(self) -> tuple[str, str]:
        """The attempt's state, and the outcome."""
        attempt = await self._row(attempts, attempts.c.prediction_id)
        return attempt.state, (await self.prediction()).outcome

    async def _row(self, table: Table, column: Column[str]) -> Any:
        named = column == self.response.headers["X-Prediction-ID"]
        return await self._service.database.fetch_one(select(table).where(named))


@pytest.fixture
async def asked(start: Start, model: str) -> AsyncIterator[Asked]:
    async with streaming() as (url, upstream):
        service = await start(**{VARIABLES[model.partition("/")[0]]: url})
        yield Asked(service, model, upstream)
        await service.stop()


async def test_streams_of_the_field(asked: Asked) -> None:
    for name, reply in STREAMS.items():
        await asked.stream(reply.stream, stream=True)
        assert {chunk["model"] for chunk in asked.chunks} == {asked.model}, name
        assert await asked.message() == reply.message, name
        assert await asked.books() == ("settled", "ok"), name
        assert (await asked.prediction()).output_tokens == 3


async def test_streams_of_the_field_a_byte_at_a_time(asked: Asked) -> None:
    for name, reply in STREAMS.items():
        await asked.stream(*(bytes([byte]) for byte in reply.stream), stream=True)
        assert asked.chunks, name
        assert await asked.message() == reply.message, name


async def test_a_call_is_mended_for_the_client(asked: Asked) -> None:
    bare = {"index": 0, "function": {"name": "f", "arguments": {"a": [float("inf")]}}}
    parts = piece({"tool_calls": bare}), piece({}, "tool_calls")
    await asked.stream(stream(*parts), stream=True)
    delta = asked.chunks[0]["choices"][0]["delta"]
    assert delta == {"tool_calls": [call('{"a":[null]}', name="f")]}


# What a server may write where a chunk has something else.
CHOICES: list[Any] = [None, 1, "x", {}, [], [1, None, "x", []], [{}]]
DELTAS: list[Any] = [None, 1, "x", [], [1], {"role": None}, {"tool_calls": None}]
CONTENTS: list[Any] = [1, {}, {"a": 1}, [], [1, [None]], True]
CALLS: list[Any] = [1, "x", [1, None, "x"], {}, [{}], True]
FUNCTIONS: list[Any] = [None, 1, "x", [], {"name": None}, {"arguments": None}, {"arguments": 1}]
INDICES: list[Any] = [None, "0", -1, 10**30, 1.5, True, [], {}]
USAGES: list[Any] = [None, {}, [], ""]
ODD: list[dict[str, Any]] = [
    *[chunk(choices) for choices in CHOICES],
    chunk([], prompt_filter_results=[{"prompt_index": 0}]),
    {"type": "ping"},
    {},
    chunk([{"index": 0, "delta": {}, "finish_reason": []}]),
    *[piece(delta) for delta in DELTAS],
    *[piece({"content": content}) for content in CONTENTS],
    *[piece({"tool_calls": calls}) for calls in CALLS],
    *[piece({"tool_calls": [{"index": 0, "function": each}]}) for each in FUNCTIONS],
    *[piece({"tool_calls": [call("", index)]}) for index in INDICES],
    piece({"function_call": None}),
    piece({"function_call": "x"}),
    piece({"annotations": [{}], "audio": {"id": "a"}}),
    *[chunk([], usage=usage) for usage in USAGES],
]


async def test_a_chunk_that_the_record_cannot_read_is_the_clients(asked: Asked) -> None:
    """In any place. A call that is an object becomes a list, which clients require."""
    for odd in ODD:
        parts = [event(each) for each in (odd, HELLO, odd, STOP, odd, USAGE_CHUNK, odd)]
        await asked.stream(b"".join(parts[:2]), b"".join(parts[2:]), DONE, stream=True)
        given = odd | {"model": asked.model}
        given.pop("usage", None)
        if given == piece({"tool_calls": {}}) | {"model": asked.model}:
            given = piece({"tool_calls": [{}]}) | {"model": asked.model}
        assert [each for each in asked.chunks if each == given] == [given] * 4, odd
        assert await asked.books() == ("settled", "ok"), odd
        assert (await asked.message())["content"] == "Hello"


async def test_an_odd_index_of_a_choice(asked: Asked) -> None:
    for index in INDICES:
        parts = piece(SPOKEN, index=index), piece({}, "stop", index)
        await asked.stream(stream(*parts, end=b""), stream=True)
        assert asked.chunks[0]["choices"][0]["index"] == index
        assert await asked.message() == SPOKEN
        assert await asked.books() == ("settled", "ok")


async def test_an_odd_usage_is_paid_at_the_bound(asked: Asked) -> None:
    usages: list[Any] = [1, "many", [1], {"prompt_tokens": {}}]
    for usage in usages:
        parts = map(event, (HELLO, STOP, {**USAGE_CHUNK, "usage": usage}))
        await asked.stream(*parts, DONE, stream=True)
        assert said(asked.chunks) == "Hello"
        assert await asked.books() == ("uncertain", "ok")


async def test_an_event_that_is_no_object_is_left_out(asked: Asked) -> None:
    for value in (b"null", b"1", b"[]", b'"x"', b"[1]", b"true", b"  "):
        await asked.stream(event(HELLO) + event(value) + stream(STOP), stream=True)
        assert said(asked.chunks) == "Hello"
        assert await asked.books() == ("settled", "ok")


ENDINGS: list[StreamEnd] = ["close", "cut", "hang"]
JUNK = [
    b"",
    event({"error": {"message": "no", "code": 500}}),
    b"event: error\ndata: no\n\n",
    event(b"{junk"),
    b"junk\n\n",
    event(b"null"),
    b"data: " + b"x" * 2000,
    b": still here\n\n" * 50,
]


@pytest.mark.parametrize("ending", ENDINGS)
async def test_a_stream_whose_choices_have_ended_has_ended_well(
    asked: Asked, ending: StreamEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever follows. The usage counts if it arrives."""
    monkeypatch.setattr(openai_wire, "LAST_SECONDS", 0.1)
    monkeypatch.setattr(parser, "EVENT_BYTES", 1000)
    for junk in JUNK:
        for parts in ((junk, event(USAGE_CHUNK)), (event(USAGE_CHUNK), junk)):
            await asked.stream(event(HELLO), event(STOP), *parts, ending=ending, stream=True)
            assert said(asked.chunks) == "Hello", parts
            is_known = junk != JUNK[-2] or parts[1] == junk
            assert await asked.books() == ("settled" if is_known else "uncertain", "ok"), parts


async def test_the_end_of_a_stream_is_not_waited_for_beyond_the_deadline(
    start: Start, model: str
) -> None:
    async with streaming([event(HELLO), event(STOP)], "hang") as (url, _):
        variable = VARIABLES[model.partition("/")[0]]
        service = await start(**{variable: url}, request_deadline_seconds=2)
        client = service.client(await service.create_user())
        response = await client.post(PATH, json=chat(model=model, stream=True))
        assert sse(response.text)[-1] == "[DONE]"
        await service.stop()


@pytest.mark.parametrize(
    ("before", "ending"),
    [
        (event(HELLO), "close"),
        (event(HELLO), "cut"),
        (event(HELLO) + event(STOP).rstrip(), "close"),
        (event(HELLO) + event(STOP) + event(piece(SPOKEN, index=1)), "cut"),
        (b": nothing\n\n", "close"),
        (event(HELLO) + event(b"{junk"), "close"),
        (event(HELLO) + event(b"\xff"), "close"),
    ],
    ids=ascii,
)
async def test_a_stream_that_is_cut_has_failed(
    asked: Asked, before: bytes, ending: StreamEnd
) -> None:
    await asked.stream(before, ending=ending, stream=True)
    assert '"code":"provider_error"' in asked.response.text
    assert b"[DONE]" not in asked.response.content
    assert await asked.books() == ("uncertain", "provider_error")


async def test_each_choice_that_was_asked_for_has_to_end(asked: Asked) -> None:
    await asked.stream(event(HELLO) + event(STOP), ending="cut", stream=True, n=2)
    assert sse(asked.response.text)[-1]["error"]["code"] == "provider_error"


async def test_a_server_may_give_fewer_choices_than_were_asked_for(asked: Asked) -> None:
    await asked.stream(stream(HELLO, STOP, end=b""), stream=True, n=2)
    assert said(asked.chunks) == "Hello"


async def test_done_ends_a_stream(asked: Asked) -> None:
    for end in (b"data:[DONE]\n\n", b"data: [DONE] \n\n", b"data: [DONE]\r\n\r\n"):
        await asked.stream(event(HELLO), end, ending="hang", stream=True)
        assert said(asked.chunks) == "Hello"


NUMBERS = b"[-Infinity, Infinity, NaN, 1e999, -1e999, 1.5]"


def with_numbers(document: dict[str, Any]) -> bytes:
    """JSON with invalid numbers in a choice."""
    (choice,) = document["choices"]
    odd = {**document, "choices": [{**choice, "logprobs": "here"}]}
    return json.dumps(odd).encode().replace(b'"here"', NUMBERS)


async def test_numbers_that_are_not_finite_are_null(asked: Asked) -> None:
    """For the client and in the record, from words or from a number that is too large."""
    finite = [None] * 5 + [1.5]
    parts = map(event, (with_numbers(HELLO), STOP, USAGE_CHUNK))
    await asked.stream(*parts, DONE, stream=True)
    assert asked.chunks[0]["choices"][0]["logprobs"] == finite
    await asked.ask(with_numbers(ANSWER))
    assert asked.response.json()["choices"][0]["logprobs"] == finite
    assert (await asked.prediction()).output["choices"][0]["logprobs"] == finite
    assert await asked.books() == ("settled", "ok")


async def test_halves_of_surrogate_pairs_and_other_bytes_are_replaced(asked: Asked) -> None:
    text = b"\\ud83d|\\ude00|\\ud83d\\ude00|\xff"
    await asked.ask(json.dumps(ANSWER).encode().replace(b"Hello", text))
    expected = "\ufffd|\ufffd|\U0001f600|\ufffd"
    assert asked.response.json()["choices"][0]["message"]["content"] == expected
    assert (await asked.message())["content"] == expected


@pytest.mark.parametrize("levels", [150, 250, 100_000])
async def test_deep_nesting_ends_in_an_answer(asked: Asked, levels: int) -> None:
    deep = b'{"deep": ' + b"[" * levels + b"]" * levels + b", "
    await asked.ask(deep + json.dumps(ANSWER).encode()[1:])
    assert asked.response.status_code == (200 if levels == 150 else 502)


async def test_a_call_in_a_whole_answer_is_mended(asked: Asked) -> None:
    function = {"name": "w", "arguments": {"city": "Rome"}}
    message = {
        "role": "assistant",
        "tool_calls": {"id": "0", "type": "function", "function": function},
        "function_call": function,
    }
    await asked.ask({**ANSWER, "choices": [{"message": message, "finish_reason": "stop"}]})
    mended = {"name": "w", "arguments": '{"city":"Rome"}'}
    message = asked.response.json()["choices"][0]["message"]
    assert message["tool_calls"] == [{"id": "0", "type": "function", "function": mended}]
    assert message["function_call"] == mended
    assert await asked.books() == ("settled", "ok")


async def test_odd_choices_are_passed_on(asked: Asked) -> None:
    calling = {"content": "Hello", "tool_calls": [1]}
    for choices, outcome in [
        ([], "empty"),
        ([1, None], "empty"),
        ([{}], "empty"),
        ([{"message": 1, "finish_reason": ["x"]}], "empty"),
        ([{"message": {"content": [{"type": "text", "text": "Hello"}]}}], "ok"),
        ([{"message": calling, "finish_reason": {}}], "ok"),
        ([{"message": SPOKEN, "finish_reason": "eos_token"}], "ok"),
        ([{"message": SPOKEN, "finish_reason": "max_tokens"}], "truncated"),
    ]:
        await asked.ask({**ANSWER, "choices": choices})
        assert asked.response.json()["choices"] == choices
        assert await asked.books() == ("settled", outcome), choices


async def test_the_texts_of_parts_are_the_answer_that_was_asked_for(asked: Asked) -> None:
    parts = [{"type": "text", "text": '{"a"'}, {"type": "text", "text": ": 1}"}]
    body = {**ANSWER, "choices": [{"message": {"content": parts}}]}
    await asked.ask(body, response_format={"type": "json_object"})
    assert await asked.books() == ("settled", "ok")


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_choices_pays_the_reported_usage(
    asked: Asked, streamed: bool
) -> None:
    await asked.stream(json.dumps({**ANSWER, "choices": None}).encode(), stream=streamed)
    assert error_of(asked.response) == (502, "provider_error", None)
    assert await asked.books() == ("settled", "provider_error")


BUSY = (503, "provider_cooling_down")
TOO_LONG = "Made up: inputs tokens + max_new_tokens must be <= 4096"


@pytest.mark.parametrize("form", ["whole", "document", "event"])
@pytest.mark.parametrize(
    ("error", "expected", "state"),
    [
        ({"message": "busy", "code": 429}, BUSY, "released"),
        ({"message": "busy", "code": "429"}, BUSY, "released"),
        ({"message": "busy", "type": "rate_limit_error"}, BUSY, "released"),
        (
            {"message": TOO_LONG, "http_status_code": 422},
            (400, "context_length_exceeded"),
            "released",
        ),
        ({"message": "no", "status": 400}, (400, "invalid_request"), "released"),
        (
            {"message": [{"loc": 1, "msg": "no"}], "status": 400},
            (400, "invalid_request"),
            "released",
        ),
        ("Made up: something", (502, "provider_error"), "uncertain"),
    ],
    ids=repr,
)
async def test_an_error_under_status_200_is_the_error_that_it_says(
    asked: Asked, error: Any, expected: tuple[int, str], state: str, form: str
) -> None:
    body = {"error": error}
    raw = event(body) if form == "event" else json.dumps(body).encode()
    await asked.stream(raw, stream=form != "whole")
    assert error_of(asked.response)[:2] == expected
    assert await asked.books() == (state, "provider_error")
    assert asked.calls == 1
