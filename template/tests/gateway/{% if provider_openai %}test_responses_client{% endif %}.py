"""The official OpenAI client takes this service for OpenAI when it asks for responses."""

import asyncio
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.responses import (
    EasyInputMessageParam,
    ParsedResponseFunctionToolCall,
    Response,
    ResponseFunctionToolCall,
    ResponseFunctionToolCallParam,
    ResponseIncludable,
    ResponseInputImageParam,
    ResponseInputTextParam,
    ResponseOutputMessageParam,
    ResponseOutputRefusalParam,
    ResponseOutputTextParam,
    ResponseReasoningItemParam,
    response_create_params,
)
from openai.types.responses.response_input_param import FunctionCallOutput
from pydantic import BaseModel

from gateway.db.tables import predictions
from gateway.providers.responses.native import BREAKPOINT, ITEM_FIELDS, PART_FIELDS
from gateway.providers.responses.parameters import RESPONSES
from gateway.providers.responses.reading import USAGE
from gateway.providers.responses.writing import ResponseWriter
from gateway.schemas.response_options import INCLUDABLE
from gateway.schemas.responses import ResponseRequest
from tests.gateway.test_openai_client import official
from tests.openai_types import check, check_events
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.support import ROOT, Service, User, unique, write_policy

SAID = "You said: one two"
# One model that is built in, one of a server that only speaks chats, one of a server that speaks
# responses itself.
MODELS = """
[servers.native]
base_url = "{url}"
api_key_env = "NATIVE_KEY"
responses = true

[models."native/chat"]
provider = "native"
name = "gpt-5-mini"
kind = "chat"
input_usd_per_million_tokens = 0.25
output_usd_per_million_tokens = 2.00
max_output_tokens = 64
max_input_tokens = 2000
tokens_per_image = 100
prices_checked = 2026-11-01
attempts = 1
"""
CHATS = pytest.mark.parametrize("model", ["offline/echo", "openai/vision", "native/chat"])
SERVERS = pytest.mark.parametrize("model", ["openai/vision", "native/chat"])
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather at a place.",
    "parameters": {
        "type": "object",
        "properties": {"place": {"type": "string"}},
        "required": ["place"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Place(BaseModel):
    name: str
    visits: int


@pytest.fixture
def policy_dir(policy_dir: Path, simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NATIVE_KEY", unique("canary"))
    url = simulator.environment["OPENAI_BASE_URL"]
    write_policy(policy_dir, MODELS.format(url=url))
    return policy_dir


@pytest.fixture
def client(service: Service, user: User) -> AsyncOpenAI:
    return official(service, user)


@CHATS
async def test_response(service: Service, client: AsyncOpenAI, model: str) -> None:
    response = await client.responses.create(model=model, input="one two")
    assert (response.output_text, response.model, response.status) == (SAID, model, "completed")
    row = await service.prediction()
    assert response.usage is not None
    assert response.usage.input_tokens == row.input_tokens
    assert response.usage.output_tokens == row.output_tokens
    check(Response, response.to_dict())


@CHATS
async def test_a_stream_is_accumulated(client: AsyncOpenAI, model: str) -> None:
    deltas = []
    async with client.responses.stream(model=model, input="one two") as stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                deltas.append(event.delta)
        final = await stream.get_final_response()
    assert "".join(deltas) == final.output_text == SAID
    assert final.model == model
    assert final.usage is not None


@CHATS
async def test_an_answer_is_taken_back(client: AsyncOpenAI, model: str) -> None:
    conversation: list[Any] = [{"role": "user", "content": "one two"}]
    first = await client.responses.create(model=model, input=conversation)
    # As the client's examples do it, and as a document with every null.
    for answer in (first.output, [item.model_dump() for item in first.output]):
        asked = [*conversation, *answer, {"role": "user", "content": "three"}]
        second = await client.responses.create(model=model, input=asked)
        assert second.output_text == "You said: three"


@SERVERS
async def test_a_tool_loop_of_two_turns(client: AsyncOpenAI, model: str) -> None:
    asked: list[Any] = [{"role": "user", "content": "the weather in Rome"}]
    first = await client.responses.create(model=model, input=asked, tools=[WEATHER])
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.name, json.loads(call.arguments)) == ("weather", {"place": "Rome"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    asked += [*first.output, result]
    second = await client.responses.create(model=model, input=asked, tools=[WEATHER])
    assert second.output_text == "You said: sunny"


async def test_the_page_shows_a_tool_loop(service: Service, user: User) -> None:
    page = (ROOT / "docs/responses.md").read_text("utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    client = openai.OpenAI(
        base_url=f"{service.url}/v1", api_key=user.credential, default_headers=user.headers
    )
    given = {"client": client, "model": "openai/chat", "tools": [WEATHER], "run": run_weather}
    await asyncio.to_thread(exec, code, given)
    assert given["second"].output_text == "You said: sunny in Rome"  # type: ignore[attr-defined]


def run_weather(call: ResponseFunctionToolCall) -> str:
    return f"sunny in {json.loads(call.arguments)['place'].rstrip('?')}"


@SERVERS
async def test_a_streamed_call_is_accumulated(client: AsyncOpenAI, model: str) -> None:
    given: Any = {"model": model, "input": "the weather in Rome", "tools": [WEATHER]}
    pieces = []
    async with client.responses.stream(**given) as stream:
        async for event in stream:
            if event.type == "response.function_call_arguments.delta":
                pieces.append(event.delta)
        (call,) = (await stream.get_final_response()).output
    assert isinstance(call, ParsedResponseFunctionToolCall)
    assert "".join(pieces) == call.arguments
    assert call.parsed_arguments == {"place": "Rome"}


@SERVERS
async def test_a_structured_answer_is_parsed(
    service: Service, client: AsyncOpenAI, model: str
) -> None:
    response = await client.responses.parse(model=model, input="of Rome", text_format=Place)
    assert response.output_parsed == Place(name="Rome", visits=1)
    async with client.responses.stream(model=model, input="of Rome", text_format=Place) as stream:
        assert (await stream.get_final_response()).output_parsed == Place(name="Rome", visits=1)
    service.simulator.inject(Fault(kind="prose"))
    prose: Any = {"format": {"type": "json_object"}}
    await client.responses.create(model=model, input="of Rome", text=prose)
    *_, last = await service.rows(predictions)
    assert last.outcome == "invalid_schema"


@SERVERS
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "outcome", "status", "kind"),
    [
        ("refusal", "refusal", "completed", "refusal"),
        ("truncated", "truncated", "incomplete", "output_text"),
        ("filtered", "filtered", "incomplete", "output_text"),
        ("empty", "empty", "completed", None),
    ],
)
async def test_the_outcome_is_recorded(
    service: Service,
    client: AsyncOpenAI,
    model: str,
    stream: bool,
    fault: Any,
    outcome: str,
    status: str,
    kind: str | None,
) -> None:
    service.simulator.inject(Fault(kind=fault))
    if stream:
        events = await client.responses.create(model=model, input="one two", stream=True)
        documents = [event.to_dict() async for event in events]
        check_events(documents)
        response: Any = documents[-1]["response"]
    else:
        response = (await client.responses.create(model=model, input="one two")).to_dict()
    assert response["status"] == status
    kinds = [part["type"] for item in response["output"] for part in item["content"]]
    assert kinds == ([kind] if kind else [])
    assert (await service.prediction()).outcome == outcome


@SERVERS
async def test_an_image_is_bounded(service: Service, client: AsyncOpenAI, model: str) -> None:
    image = {"type": "input_image", "image_url": "https://example.com/x.png", "detail": "low"}
    content: Any = [{"type": "input_text", "text": "one"}, image]
    asked: Any = [{"role": "user", "content": content}]
    response = await client.responses.create(model=model, input=asked)
    assert response.output_text.split() == ["You", "said:", "one"]
    assert (await service.attempt()).bound_nano_usd > 100 * 250
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="openai/chat", input=asked)
    assert caught.value.param == "input.0.content.1.type"


@SERVERS
async def test_its_longest_output_is_always_sent(
    service: Service, client: AsyncOpenAI, model: str
) -> None:
    await client.responses.create(model=model, input="one", max_output_tokens=16)
    await client.responses.create(model=model, input="one")
    name = "max_output_tokens" if model == "native/chat" else "max_tokens"
    sent = [call.body or {} for call in service.simulator.calls]
    assert [body[name] for body in sent] == [16, 64]


@SERVERS
@pytest.mark.parametrize("kind", ["full_usage", "no_usage"])
async def test_the_bound_holds(
    service: Service, client: AsyncOpenAI, model: str, kind: Any
) -> None:
    service.simulator.inject(Fault(kind=kind))
    instructions = "Be kind. " * 100
    await client.responses.create(model=model, input="one", instructions=instructions)
    attempt = await service.attempt()
    assert attempt.cost_nano_usd <= attempt.bound_nano_usd
    assert attempt.state == ("settled" if kind == "full_usage" else "uncertain")


@SERVERS
async def test_a_context_that_is_too_long_is_named(
    service: Service, client: AsyncOpenAI, model: str
) -> None:
    fault = Fault(kind="error", status=400)
    service.simulator.inject(fault)
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model=model, input="one")
    assert caught.value.type == "invalid_request_error"


@SERVERS
@pytest.mark.parametrize("kind", ["cut", "stream_error"])
async def test_a_stream_that_breaks_off_raises_in_the_middle(
    service: Service, client: AsyncOpenAI, model: str, kind: Any
) -> None:
    after = 6 if model == "native/chat" else 3
    service.simulator.inject(Fault(kind=kind, after=after))
    stream = await client.responses.create(model=model, input="one two", stream=True)
    heard: list[str] = []

    async def hear() -> None:
        async for event in stream:
            assert event.type != "response.completed"
            heard.append(event.delta if event.type == "response.output_text.delta" else "")

    with pytest.raises(openai.APIError) as caught:
        await hear()
    assert "".join(heard) == "You said:"
    assert caught.value.code == "provider_error"
    assert await service.books() == ("uncertain", "provider_error")


def test_the_table_has_the_official_parameters_and_no_other() -> None:
    official = {*response_create_params.ResponseCreateParamsBase.__annotations__, "stream"}
    assert set(RESPONSES) == set(ResponseRequest.model_fields) == official
    assert set(get_args(ResponseIncludable)) == INCLUDABLE


# What is not sent of an item: nothing is kept under an id, and the rest is of hosted tools.
LEFT = {"async", "caller", "id", "name", "namespace", "status"}


@pytest.mark.parametrize(
    ("kind", "official"),
    [
        ("message", (EasyInputMessageParam, ResponseOutputMessageParam)),
        ("function_call", (ResponseFunctionToolCallParam,)),
        ("function_call_output", (FunctionCallOutput,)),
        ("reasoning", (ResponseReasoningItemParam,)),
        ("input_text", (ResponseInputTextParam,)),
        ("input_image", (ResponseInputImageParam,)),
        ("output_text", (ResponseOutputTextParam,)),
        ("refusal", (ResponseOutputRefusalParam,)),
    ],
)
def test_each_official_field_is_sent_or_left_on_purpose(kind: str, official: Any) -> None:
    names = {name for cls in official for name in get_type_hints(cls)}
    left = {"file_id", "logprobs", BREAKPOINT} if kind in PART_FIELDS else LEFT
    assert names - left == set({**ITEM_FIELDS, **PART_FIELDS}[kind]) - left


PIECES = st.one_of(
    st.fixed_dictionaries({"content": st.text(max_size=4)}),
    st.fixed_dictionaries({"refusal": st.text(max_size=4)}),
    st.fixed_dictionaries({"reasoning_content": st.text(max_size=4)}),
    st.builds(
        lambda index, name, text: {
            "tool_calls": [
                {
                    "index": index,
                    **({"id": f"call_{name}{index}"} if name else {}),
                    "function": {"name": name, "arguments": text},
                }
            ]
        },
        st.integers(0, 2),
        st.sampled_from([None, "f", "g"]),
        st.text(max_size=4),
    ),
)
ENDS = st.sampled_from(["stop", "tool_calls", "length", "content_filter", None])
USAGES = st.sampled_from(
    [
        None,
        {"prompt_tokens": 3, "completion_tokens": 4},
        {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 2}},
    ]
)


@given(st.lists(PIECES, max_size=12), ENDS, USAGES)
def test_events_are_those_of_the_official_types(
    deltas: list[dict[str, Any]], reason: str | None, usage: dict[str, Any] | None
) -> None:
    writer = ResponseWriter({"input": "one", "tools": [{"type": "function", "name": "f"}]})
    events = [event for chunk in chunks(deltas, reason, usage) for event in writer.add(chunk)]
    events = copy.deepcopy([e for e in events + writer.end() if e["type"] != USAGE])
    check_events(events)
    final = events[-1]["response"]
    assert final["status"] == (
        "incomplete" if reason in {"length", "content_filter"} else "completed"
    )
    assert sorted(joined(events)) == sorted(written(final))


def chunks(
    deltas: list[dict[str, Any]], reason: str | None, usage: dict[str, Any] | None
) -> Iterator[dict[str, Any]]:
    """A chat's stream."""
    for delta in deltas:
        yield {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if usage:
        yield {"choices": [], "usage": usage}


def joined(events: list[dict[str, Any]]) -> list[str]:
    """The texts of the deltas, by part."""
    parts: dict[Any, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"], event.get("content_index")
            parts[place] = parts.get(place, "") + event["delta"]
    return list(parts.values())


def written(response: dict[str, Any]) -> list[str]:
    """The texts of a response, by part."""
    texts = []
    for item in response["output"]:
        texts += [item["arguments"]] if "arguments" in item else []
        texts += [part.get("text", part.get("refusal")) for part in item.get("content", ())]
    return texts
