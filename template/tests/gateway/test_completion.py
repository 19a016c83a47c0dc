"""The outcome of a chat; a stream is recorded like the answer without streaming."""

import copy
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.providers.base import Body, Chunks, Outcome, ProviderRequest, Reply, Usage
from gateway.providers.completion import EMBEDDING_COUNTS, Transcript, outcome_of, usage_of
from tests.fake_provider import (
    COST,
    MAX_COST,
    USAGE,
    FakeProvider,
    chunk,
    completion,
    stream_fine,
    usage_chunk,
)
from tests.fixtures.service import Start
from tests.support import Service, chat

CALL = {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
JSON_WANTED = {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}}
PATH = "/v1/chat/completions"
UNUSED = {PATH: "input", "/v1/responses": "messages"}
STRANGE_USAGE = {"choices": [], "usage": {"prompt_tokens": "2", "completion_tokens": 5}}


def chunks_of(answer: Body, cuts: list[int]) -> list[Body]:
    """The chunks of a stream with the content of a complete choice."""
    (choice,) = answer["choices"]
    message, pieces = choice["message"], []
    for name in ("content", "refusal"):
        text, rest = message.get(name) or "", 0
        for cut in sorted(cuts):
            pieces.append({name: text[rest:cut]})
            rest = max(rest, cut)
        pieces.append({name: text[rest:]})
    deltas = [{"role": "assistant"}, *pieces]
    parts = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    parts.append({"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]})
    return [{"choices": [part]} for part in parts]


@pytest.mark.parametrize(
    ("answer", "asked", "outcome"),
    [
        (completion("fine"), {}, Outcome.OK),
        (completion("fine", "length"), {}, Outcome.TRUNCATED),
        (completion(None, "length"), {}, Outcome.TRUNCATED),
        (completion("fine", "content_filter"), {}, Outcome.FILTERED),
        (completion(None), {}, Outcome.EMPTY),
        (completion(""), {}, Outcome.EMPTY),
        (completion(None, refusal="No."), {}, Outcome.REFUSAL),
        (completion(None, "tool_calls", tool_calls=[CALL]), {}, Outcome.OK),
        (completion(None, "tool_calls", tool_calls=[CALL]), JSON_WANTED, Outcome.OK),
        (completion('{"a": 1}'), JSON_WANTED, Outcome.OK),
        (completion("fine"), JSON_WANTED, Outcome.INVALID_SCHEMA),
        (completion("fine"), {"response_format": {"type": "json_object"}}, Outcome.INVALID_SCHEMA),
        (completion("fine"), {"response_format": {"type": "text"}}, Outcome.OK),
        ({"choices": []}, {}, Outcome.EMPTY),
        ({"choices": [{}]}, {}, Outcome.EMPTY),
    ],
)
def test_outcome(answer: Body, asked: dict[str, Any], outcome: Outcome) -> None:
    assert outcome_of(answer, asked) is outcome


def test_one_choice_that_is_not_as_asked_decides() -> None:
    choices = [*completion("fine")["choices"], *completion("", "content_filter")["choices"]]
    assert outcome_of({"choices": choices}, {}) is Outcome.FILTERED


# What is no number of tokens.
STRANGE = [True, "1_0", "10", 3.9, 10**30, 1e30, -1, float("nan"), float("inf"), [5], {"total": 5}]


@pytest.mark.parametrize(
    "reported",
    [
        None,
        {},
        "seven",
        [],
        {"prompt_tokens": None},
        {"prompt_tokens": 2},
        {"prompt_tokens": 2, "completion_tokens": None},
        {"prompt_tokens": "many"},
        {"prompt_tokens": -1, "completion_tokens": 1},
        {"prompt_tokens": 1, "completion_tokens": -1},
        {"prompt_tokens": float("inf")},
        {"prompt_tokens": float("nan")},
        {"prompt_tokens": 10**30, "completion_tokens": 1},
        *({"prompt_tokens": 2, "completion_tokens": strange} for strange in STRANGE),
        *({"prompt_tokens": strange, "completion_tokens": 5} for strange in STRANGE),
        # A written part costs more than plain input.
        *(
            {"prompt_tokens": 2, "completion_tokens": 5, "cache_creation_tokens": strange}
            for strange in STRANGE
        ),
    ],
    ids=repr,
)
def test_an_invalid_usage_is_unknown(reported: Any) -> None:
    assert usage_of(reported) is None


def test_usage() -> None:
    assert usage_of({"prompt_tokens": 2, "completion_tokens": 5}) == Usage(2, 5)
    assert usage_of({"prompt_tokens": 2}, EMBEDDING_COUNTS) == Usage(2, 0)
    assert usage_of({"prompt_tokens": 0, "completion_tokens": 0}) == Usage(0, 0)
    assert usage_of({"prompt_tokens": 2.0, "completion_tokens": 5.0}) == Usage(2, 5)


@pytest.mark.parametrize(
    ("total", "output"), [(107, 105), (7, 5), (2, 5), (0, 5), (None, 5), ("107", 5), (10**30, 5)]
)
def test_reasoning_that_only_the_total_counts_is_output(total: Any, output: int) -> None:
    """As xAI and Gemini report it."""
    reported = {"prompt_tokens": 2, "completion_tokens": 5, "total_tokens": total}
    assert usage_of(reported) == Usage(2, output)


def test_cached_tokens_beyond_the_input_are_not_part_of_it() -> None:
    """As some proxies of Anthropic report them."""
    parts = {"cache_read_input_tokens": 900, "cache_creation_input_tokens": 100}
    reported = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 1015, **parts}
    kinds = {"cached_input_tokens": 900, "cache_write_tokens": 100}
    assert usage_of(reported) == Usage(1010, 5, **kinds)
    assert usage_of({**reported, "prompt_tokens": 2**31 - 1, "cached_tokens": 2**31 - 1}) is None


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_a_stream_whose_last_usage_is_strange_has_none(strange: Any) -> None:
    """Some servers send a running count with each chunk."""
    transcript = Transcript()
    for reported in (1, strange):
        usage = {"prompt_tokens": 2, "completion_tokens": reported}
        transcript.add({"choices": [], "usage": usage})
    assert transcript.usage is None
    transcript.add({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": 5}})
    transcript.add({"choices": [], "usage": {"queue_time": 0.1}})
    transcript.add({"choices": [], "usage": True})
    assert transcript.usage == Usage(2, 5)


@pytest.mark.parametrize(
    ("reported", "cached", "written"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 50}}, 30, 50),
        ({"prompt_tokens_details": {"cached_tokens": 30, "audio_tokens": 1}}, 30, 0),
        ({"input_tokens_details": {"cached_tokens": 30, "cache_write_tokens": 50}}, 30, 50),
        ({"prompt_cache_hit_tokens": 30, "prompt_cache_miss_tokens": 70}, 30, 0),
        ({"cached_tokens": 30}, 30, 0),
        ({"cache_read_input_tokens": 30, "cache_creation_input_tokens": 50}, 30, 50),
        ({"prompt_tokens_details": {"cached_tokens": 30.0, "cache_creation_tokens": 50}}, 30, 50),
        ({"prompt_tokens_details": {"cached_tokens": 50, "cache_write_tokens": 50}}, 50, 50),
        ({"cached_tokens": 10**30}, 0, 0),
        ({"prompt_tokens_details": None, "input_tokens_details": []}, 0, 0),
        ({"prompt_tokens_details": "many"}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": None, "cache_write_tokens": None}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": "30"}}, 0, 0),
        ({"prompt_tokens_details": {"cached_tokens": [30]}}, 0, 0),
        ({"cached_tokens": float("inf")}, 0, 0),
        ({"cached_tokens": 30.5}, 0, 0),
    ],
    ids=repr,
)
def test_parts_of_the_input(reported: Body, cached: int, written: int) -> None:
    parts = {"cached_input_tokens": cached, "cache_write_tokens": written}
    chat_usage = {"prompt_tokens": 100, "completion_tokens": 5, **reported}
    assert usage_of(chat_usage) == Usage(100, 5, **parts)
    assert usage_of({"prompt_tokens": 100, **reported}, EMBEDDING_COUNTS) == Usage(100, **parts)


@given(st.text(), st.none() | st.text(), st.sampled_from(["stop", "length"]), st.data())
def test_a_transcript_is_the_answer_in_one_piece(
    content: str, refusal: str | None, reason: str, data: st.DataObject
) -> None:
    answer = completion(content, reason, refusal=refusal)
    transcript = Transcript()
    for part in chunks_of(answer, data.draw(st.lists(st.integers(0, len(content)), max_size=5))):
        transcript.add(part)
    (choice,) = transcript.output["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == reason
    assert choice["message"].get("content", "") == content
    assert choice["message"].get("refusal", "") == (refusal or "")
    assert outcome_of(transcript.output, {}) is outcome_of(answer, {})


def test_choices_are_kept_apart() -> None:
    transcript = Transcript()
    for index, text in ((1, "b"), (0, "a"), (1, "d"), (0, "c")):
        transcript.add({"choices": [{"index": index, "delta": {"content": text}}]})
    choices = transcript.output["choices"]
    texts = {choice["index"]: choice["message"]["content"] for choice in choices}
    assert texts == {0: "ac", 1: "bd"}


def test_the_pieces_of_tool_calls_are_put_together() -> None:
    other = {**CALL, "id": "call_2"}
    pieces = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "find"}},
        {"index": 0, "function": {"arguments": "{"}},
        {"index": 1, **other, "function": {"name": "find", "arguments": "{"}},
        {"index": 0, "function": {"arguments": "}"}},
        {"index": 1, "function": {"arguments": "}"}},
    ]
    transcript = Transcript()
    for piece in pieces:
        transcript.add({"choices": [{"index": 0, "delta": {"tool_calls": [piece]}}]})
    (choice,) = transcript.output["choices"]
    assert choice["message"]["tool_calls"] == [CALL, other]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "rest", "outcome"),
    [
        (completion("fine"), {}, "ok"),
        (completion(""), {}, "empty"),
        (completion("", refusal="No."), {}, "refusal"),
        (completion("fi", "length"), {}, "truncated"),
        (completion("fi", "content_filter"), {}, "filtered"),
        (completion("fine"), JSON_WANTED, "invalid_schema"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_outcome_is_recorded(
    scripted: FakeProvider,
    start: Start,
    answer: Body,
    rest: dict[str, Any],
    outcome: str,
    stream: bool,
) -> None:
    async def whole(_: ProviderRequest) -> Reply:
        return Reply(answer, USAGE)

    async def in_chunks(_: ProviderRequest) -> Chunks:
        for part in chunks_of(answer, [1]):
            yield [part]
        yield [usage_chunk(USAGE)]

    scripted.on_answer, scripted.on_stream = whole, in_chunks
    service = await start()
    client = service.client(await service.create_user())
    response = await client.post(PATH, json=chat(stream=stream, **rest))
    assert response.status_code == 200
    prediction = await service.prediction()
    assert (prediction.status, prediction.outcome) == ("succeeded", outcome)
    assert prediction.cost_nano_usd == COST


async def test_a_stream_is_recorded_like_the_answer_in_one_piece(
    service: Service, client: httpx2.AsyncClient
) -> None:
    whole = await client.post(PATH, json=chat())
    streamed = await client.post(PATH, json=chat(stream=True))
    records = [
        (await client.get(f"/v1/predictions/{answer.headers['X-Prediction-ID']}")).json()
        for answer in (whole, streamed)
    ]
    messages = [record["output"]["choices"][0] for record in records]
    assert messages[0]["message"]["content"] == messages[1]["message"]["content"]
    assert messages[0]["finish_reason"] == messages[1]["finish_reason"] == "stop"
    assert records[0]["usage"] == records[1]["usage"]
    assert records[0]["cost_nano_usd"] == records[1]["cost_nano_usd"] > 0


async def test_the_last_usage_of_a_stream_counts(scripted: FakeProvider, start: Start) -> None:
    async def twice(request: ProviderRequest) -> Chunks:
        yield [{**chunk("fi"), **usage_chunk(Usage(2, 1))}]
        async for chunks in stream_fine(request):
            yield chunks

    scripted.on_stream = twice
    service = await start()
    client = service.client(await service.create_user())
    await client.post(PATH, json=chat(stream=True))
    assert (await service.attempt()).cost_nano_usd == COST


@pytest.mark.parametrize(
    ("chunks", "paid"),
    [
        ([chunk("fi"), usage_chunk(USAGE), chunk("ne", "stop")], ("uncertain", MAX_COST)),
        ([usage_chunk(USAGE), chunk("", "stop")], ("settled", COST)),
        ([usage_chunk(USAGE), chunk("fine", "stop"), usage_chunk(Usage())], ("settled", COST)),
        ([usage_chunk(Usage(2, 0)), chunk("fine"), usage_chunk(Usage(0, 5))], ("settled", COST)),
        ([usage_chunk(USAGE), STRANGE_USAGE], ("uncertain", MAX_COST)),
    ],
    ids=["before output", "before the end", "zero at the end", "in two parts", "strange"],
)
@pytest.mark.parametrize("path", [PATH, "/v1/responses"])
async def test_a_stream_is_not_settled_below_what_it_reports(
    scripted: FakeProvider, start: Start, path: str, chunks: list[Body], paid: tuple[str, int]
) -> None:
    async def told(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield copy.deepcopy(chunks)

    scripted.on_stream = told
    service = await start()
    client = service.client(await service.create_user())
    body = {**chat(stream=True), "input": "one two"}
    await client.post(path, json={name: body[name] for name in body if name != UNUSED[path]})
    attempt = await service.attempt()
    assert (attempt.state, attempt.cost_nano_usd) == paid
