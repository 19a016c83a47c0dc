"""Responses that are translated from a chat: pieces of all forms, and streams that break."""

import asyncio
from typing import Any

import pytest

from gateway.providers.base import Body, Chunks, ProviderFailure, ProviderRequest, Usage
from gateway.providers.responses.reading import ENDS, ResponseTranscript
from gateway.providers.responses.writing import ResponseWriter
from tests.fake_provider import COST, MAX_COST, USAGE, FakeProvider, chunk, stream_fine, usage_chunk
from tests.fixtures.service import Start
from tests.gateway.test_streams import ended, fail_after_one
from tests.support import eventually
from tests.test_responses import PATH, ask, events_of


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


def written(*deltas: Body, reason: str = "stop", **request: Any) -> Body:
    """The response of these deltas. Checks that a complete chat gives the same."""
    writer = ResponseWriter({"input": "one", **request})
    events = [event for delta in deltas for event in writer.add(piece(delta))]
    events += writer.add(piece({}, reason)) + writer.end()
    transcript = ResponseTranscript()
    for event in events:
        transcript.add(event)
    assert transcript.output == writer.response
    return writer.response


def piece(delta: Body, reason: str | None = None) -> Body:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


def call(**rest: Any) -> Body:
    return {"tool_calls": [rest]}


def summary(response: Body) -> list[Any]:
    """The texts of the items."""
    return [
        (item["name"], item["arguments"])
        if item["type"] == "function_call"
        else [part.get("text", part.get("refusal")) for part in item["content"]]
        for item in response["output"]
    ]


@pytest.mark.parametrize(
    ("deltas", "items"),
    [
        ([{"content": "o"}, {"content": "ne"}], [["one"]]),
        ([{"content": [{"type": "text", "text": "one"}, {"type": "x"}, 1]}], [["one"]]),
        ([{"content": "one"}, {"refusal": "no"}], [["one", "no"]]),
        ([{"reasoning_content": "a"}, {"reasoning": "b"}, {"content": "one"}], [["ab"], ["one"]]),
        ([{"reasoning": "a", "reasoning_content": "a"}], [["a"]]),
        ([{"content": None, "refusal": None, "tool_calls": None}], []),
        (
            [
                call(index=0, id="c1", function={"name": "f", "arguments": "{"}),
                call(index=1, id="c2", function={"name": "g", "arguments": ""}),
                call(index=0, function={"arguments": "}"}),
            ],
            [("f", "{}"), ("g", "{}")],
        ),
        (
            [
                call(index=0, id="c1", function={"name": "f", "arguments": "1"}),
                call(index=0, id="c2", function={"name": "g", "arguments": "2"}),
            ],
            [("f", "1"), ("g", "2")],
        ),
        (
            [
                call(index=None, id="c1", function={"name": "f", "arguments": "1"}),
                call(function={"arguments": "2"}),
                call(function={"name": "g", "arguments": "3"}),
            ],
            [("f", "12"), ("g", "3")],
        ),
        ([{"content": "one"}, call(id="c1", function={"name": "f"}), {"content": "two"}], None),
        ([{"tool_calls": [1, {"function": 1}]}], [("", "{}")]),
    ],
    ids=str,
)
def test_pieces_of_every_form(deltas: list[Body], items: list[Any] | None) -> None:
    response = written(*deltas)
    assert summary(response) == (items or [["one"], ("f", "{}"), ["two"]][: 3 * (items is None)])
    assert response["status"] == "completed"
    assert all(item["status"] == "completed" for item in response["output"])


def test_calls_have_ids_of_their_own() -> None:
    twice = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    response = written(
        {"tool_calls": [twice, {**twice, "index": 1}, {**twice, "id": "", "index": 2}]}
    )
    ids = [item["call_id"] for item in response["output"]]
    assert ids[0] == "c"
    assert len(set(ids)) == 3


def test_a_truncated_response_is_incomplete() -> None:
    response = written({"reasoning": "a"}, {"content": "one"}, reason="length")
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]


def test_logprobs_and_citations_are_kept() -> None:
    probable = {"token": "one", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    cited = {"url": "https://example.com", "title": "x", "start_index": 0, "end_index": 1}
    writer = ResponseWriter({})
    choice = piece(
        {"content": "one", "annotations": [{"type": "url_citation", "url_citation": cited}]}
    )
    choice["choices"][0]["logprobs"] = {"content": [probable]}
    kinds = [event["type"] for event in writer.add(choice)]
    assert "response.output_text.annotation.added" in kinds
    (last,) = [event for event in writer.end() if event["type"] in ENDS]
    (part,) = last["response"]["output"][0]["content"]
    assert part["annotations"] == [{"type": "url_citation", **cited}]
    assert [each["token"] for each in part["logprobs"]] == ["one"]


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_text.delta", "delta": "x"},
        {"type": "response.output_text.delta", "output_index": [], "delta": "x"},
        {"type": "response.output_item.added", "output_index": 0, "item": 1},
        {"type": "response.output_item.done", "output_index": "x", "item": {}},
        {"type": "response.completed", "response": []},
        {},
    ],
    ids=str,
)
def test_the_record_leaves_out_what_it_cannot_read(event: Body) -> None:
    transcript = ResponseTranscript()
    transcript.add(event)
    assert (transcript.begun, transcript.usage) == (False, None)


async def test_a_stream_that_breaks_off_ends_with_the_official_error(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = fail_after_one(ProviderFailure("words of the provider"))
    service = await start()
    client = service.client(await service.create_user())
    headers = {"Idempotency-Key": "x"}
    response = await client.post(PATH, json=ask(stream=True), headers=headers)
    *events, last = events_of(response.text)
    assert events[-1]["delta"] == "one"
    assert (last["type"], last["code"], last["param"]) == ("error", "provider_error", None)
    assert last["error"]["message"] == last["message"]
    assert await service.books() == ("uncertain", "provider_error")
    output = (await service.prediction()).output
    assert output["output"][0]["content"] == [{"type": "output_text", "text": "one"}]
    # An error is not replayed.
    scripted.on_stream = stream_fine
    again = await client.post(PATH, json=ask(stream=True), headers=headers)
    assert events_of(again.text)[-1]["type"] == "response.completed"


@pytest.mark.parametrize(
    ("chunks", "paid"),
    [
        ([chunk("fine"), usage_chunk(USAGE)], ("settled", COST)),
        ([{**usage_chunk(USAGE), **chunk("fine", "stop")}], ("settled", COST)),
        ([usage_chunk(USAGE), chunk("fine")], ("uncertain", MAX_COST)),
        ([{**usage_chunk(Usage(2, 1)), **chunk("fi")}], ("uncertain", MAX_COST)),
    ],
    ids=["apart", "with the end", "before", "so far"],
)
async def test_a_client_that_leaves_after_the_usage_pays_the_usage(
    scripted: FakeProvider, start: Start, chunks: list[Body], paid: tuple[str, int]
) -> None:
    async def answer(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield chunks
        await asyncio.Event().wait()

    scripted.on_stream = answer
    service = await start()
    client = service.client(await service.create_user())
    async with client.stream("POST", PATH, json=ask(stream=True)) as response:
        await anext(response.aiter_lines())
    await eventually(lambda: ended(service))
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == paid
    assert scripted.cancelled == scripted.asked
