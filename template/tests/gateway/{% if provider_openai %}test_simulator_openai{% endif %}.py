"""The official OpenAI client takes the simulator for OpenAI."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types import embedding_create_params
from openai.types.chat import ChatCompletionMessageParam, completion_create_params

from tests.simulator.chat_format import CONTEXT_TOKENS
from tests.simulator.faults import Fault
from tests.simulator.openai import CHAT_PARAMETERS, EMBEDDING_PARAMETERS
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

MODEL = "gpt-4.1-mini"
MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Repeat."},
    {"role": "user", "content": "one two three"},
]


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """Point the client at the simulator; a retry would hide a fault."""
    base_url = simulator.environment["OPENAI_BASE_URL"]
    async with AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=0) as client:
        yield client


async def test_chat(simulator: Simulator, client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.model == MODEL
    assert completion.choices[0].message.content == "You said: one two three"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (4, 5)
    assert simulator.calls[0].headers["authorization"] == "Bearer sk-test"
    assert simulator.calls[0].billed == {"input_tokens": 4, "output_tokens": 5}


async def test_chat_of_the_synchronous_client(simulator: Simulator) -> None:
    base_url = simulator.environment["OPENAI_BASE_URL"]
    with OpenAI(api_key="sk-test", base_url=base_url, max_retries=0) as client:
        completion = await asyncio.to_thread(
            client.chat.completions.create, model=MODEL, messages=MESSAGES
        )
    assert completion.choices[0].message.content == "You said: one two three"


async def test_chat_headers(client: AsyncOpenAI) -> None:
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.request_id == "req_00000001"
    assert {name for name in raw.headers if name.startswith("x-ratelimit-")} == {
        f"x-ratelimit-{what}-{unit}"
        for what in ("limit", "remaining", "reset")
        for unit in ("requests", "tokens")
    }


async def test_chat_of_parts(simulator: Simulator, client: AsyncOpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "what is this"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,"}},
    ]
    completion = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": parts}]
    )
    assert completion.choices[0].message.content == "You said: what is this"
    assert simulator.calls[0].billed == {"input_tokens": 88, "output_tokens": 5}


@pytest.mark.parametrize("name", ["max_completion_tokens", "max_tokens"])
async def test_chat_respects_its_limit(client: AsyncOpenAI, name: str) -> None:
    limit: Any = {name: 3}
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES, **limit)
    assert completion.choices[0].message.content == "You said: one"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3


async def test_chat_with_several_choices(client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 10


async def test_stream(simulator: Simulator, client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert pieces == ["", "You", " said:", " one", " two", " three", ""]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)
    assert simulator.calls[0].billed == {"input_tokens": 4, "output_tokens": 5}


async def test_stream_with_usage(client: AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}, n=2
    )
    *chunks, last = [chunk async for chunk in stream]
    assert {chunk.choices[0].index for chunk in chunks} == {0, 1}
    assert all(chunk.usage is None for chunk in chunks)
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 14


async def test_embeddings_arrive_the_same_in_both_encodings(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    texts = ["one two", "three"]
    packed = await client.embeddings.create(model="small", input=texts)
    plain = await client.embeddings.create(model="small", input=texts, encoding_format="float")
    assert [call.body and call.body["encoding_format"] for call in simulator.calls] == [
        "base64",
        "float",
    ]
    assert [item.embedding for item in packed.data] == [item.embedding for item in plain.data]
    assert packed.data[0].embedding != packed.data[1].embedding
    assert packed.usage.prompt_tokens == 3


async def test_embeddings_of_one_text_and_given_size(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="small", input="one", dimensions=100)
    assert len(answer.data[0].embedding) == 100


@pytest.mark.parametrize(("given", "count"), [([1, 2, 3], 1), ([[1, 2], [3]], 2)])
async def test_embeddings_of_token_ids(
    client: AsyncOpenAI, given: list[int] | list[list[int]], count: int
) -> None:
    answer = await client.embeddings.create(model="small", input=given)
    assert (len(answer.data), answer.usage.prompt_tokens) == (count, 3)


async def test_models(client: AsyncOpenAI) -> None:
    assert MODEL in [model.id async for model in client.models.list()]


async def test_parameters_are_those_of_the_api() -> None:
    chat = completion_create_params.CompletionCreateParamsBase.__annotations__
    assert frozenset(chat) | {"stream"} == CHAT_PARAMETERS
    embeddings = embedding_create_params.EmbeddingCreateParams.__annotations__
    assert frozenset(embeddings) == EMBEDDING_PARAMETERS


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"surprise": 1}, "surprise", "unknown_parameter"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"max_tokens": 1, "max_completion_tokens": 1}, None, "invalid_parameter_combination"),
    ],
)
async def test_wrong_parameters(
    client: AsyncOpenAI, body: dict[str, object], param: str | None, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, extra_body=body)
    assert (caught.value.param, caught.value.code) == (param, code)
    assert caught.value.type == "invalid_request_error"


async def test_missing_credentials(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.models.list(extra_headers={"Authorization": openai.omit})
    assert caught.value.code == "invalid_api_key"


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        (Fault(kind="rate_limited"), openai.RateLimitError, "rate_limit_exceeded"),
        (Fault(kind="quota"), openai.RateLimitError, "insufficient_quota"),
        (Fault(kind="bad_request"), openai.BadRequestError, None),
        (Fault(kind="unauthorized"), openai.AuthenticationError, "invalid_api_key"),
        (Fault(kind="error", status=404), openai.NotFoundError, "model_not_found"),
        (Fault(kind="error"), openai.InternalServerError, None),
        (Fault(kind="overloaded"), openai.InternalServerError, None),
    ],
    ids=str,
)
async def test_refusals(
    simulator: Simulator,
    client: AsyncOpenAI,
    fault: Fault,
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    simulator.inject(fault)
    with pytest.raises(error) as caught:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert caught.value.code == code
    assert simulator.calls[0].billed is None


@pytest.mark.parametrize(("seconds", "reset"), [(30, "30s"), (360, "6m0s"), (0.5, "500ms")])
async def test_reached_limit_in_headers(
    simulator: Simulator, client: AsyncOpenAI, seconds: float, reset: str
) -> None:
    simulator.inject(Fault(kind="rate_limited", seconds=seconds, retry_after="absent"))
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    headers = caught.value.response.headers
    assert "retry-after" not in headers
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert headers["x-ratelimit-reset-requests"] == reset


async def test_an_answer_may_use_up_a_limit(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault(kind="used_up", seconds=90))
    raw = await client.chat.completions.with_raw_response.create(model=MODEL, messages=MESSAGES)
    assert raw.parse().choices[0].message.content == "You said: one two three"
    assert raw.headers["x-ratelimit-remaining-requests"] == "9999"
    assert raw.headers["x-ratelimit-remaining-tokens"] == "0"
    assert raw.headers["x-ratelimit-reset-tokens"] == "1m30s"


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="timeout"), openai.APITimeoutError),
        (Fault(kind="slow"), openai.APITimeoutError),
        (Fault(kind="drop"), openai.APIConnectionError),
        (Fault(kind="cut"), openai.APIConnectionError),
        (Fault(kind="malformed"), json.JSONDecodeError),
    ],
    ids=str,
)
async def test_lost_answers_are_billed(
    simulator: Simulator, client: AsyncOpenAI, fault: Fault, error: type[Exception]
) -> None:
    simulator.inject(fault)
    with pytest.raises(error):
        await client.chat.completions.create(model=MODEL, messages=MESSAGES, timeout=0.3)
    assert simulator.calls[0].billed == {"input_tokens": 4, "output_tokens": 5}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="cut"), openai.APIConnectionError),
        (Fault(kind="stall"), openai.APITimeoutError),
        (Fault(kind="stream_error"), openai.APIError),
        (Fault(kind="malformed"), json.JSONDecodeError),
    ],
    ids=str,
)
async def test_broken_streams(
    simulator: Simulator, client: AsyncOpenAI, fault: Fault, error: type[Exception]
) -> None:
    simulator.inject(fault)
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, timeout=0.3
    )
    arrived = [await anext(stream), await anext(stream)]
    assert arrived[1].choices[0].delta.content == "You"
    with pytest.raises(error):
        await anext(stream)


@pytest.mark.parametrize(
    ("fault", "content", "refusal", "reason"),
    [
        (Fault(kind="empty"), "", None, "stop"),
        (Fault(kind="refusal"), None, "I'm sorry, but I can't help with that.", "stop"),
        (Fault(kind="truncated"), "You said:", None, "length"),
        (Fault(kind="filtered"), "You said:", None, "content_filter"),
    ],
    ids=str,
)
async def test_contents(
    simulator: Simulator,
    client: AsyncOpenAI,
    fault: Fault,
    content: str | None,
    refusal: str | None,
    reason: str,
) -> None:
    simulator.inject(fault.model_copy(update={"times": 2}))
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    (choice,) = completion.choices
    assert (choice.message.content, choice.message.refusal) == (content, refusal)
    assert choice.finish_reason == reason
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    choices = [chunk.choices[0] async for chunk in stream]
    assert "".join(choice.delta.content or "" for choice in choices) == (content or "")
    assert "".join(choice.delta.refusal or "" for choice in choices) == (refusal or "")
    assert choices[-1].finish_reason == reason


async def test_usage_can_be_missing(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault(kind="no_usage", times=2))
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    assert completion.usage is None
    stream = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage async for chunk in stream] == [None] * 7
    assert simulator.calls[1].billed == {"input_tokens": 4, "output_tokens": 5}


async def test_usage_can_exceed_what_was_asked_for(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    simulator.inject(Fault(kind="excess_usage", excess=7, times=2))
    completion = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=100
    )
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 107
    embeddings = await client.embeddings.create(model="small", input="one")
    assert embeddings.usage.total_tokens == 8


WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "unit": {"$ref": "#/$defs/unit"},
        "days": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "hours": {"type": "array", "items": {"type": ["number", "null"]}},
        "detailed": {"type": "boolean"},
        "source": {"const": "sky"},
    },
    "$defs": {"unit": {"enum": ["C", "F"]}},
}
FILLED = '{"city":"Oslo","unit":"C","days":1,"hours":[0.5],"detailed":true,"source":"sky"}'
TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": WEATHER}}
    for name in ("weather", "climate")
]


@pytest.mark.parametrize(
    ("text", "choice", "names"),
    [
        ("the weather of Oslo", "auto", ["weather"]),
        ("the climate and the weather of Oslo", "auto", ["weather", "climate"]),
        ("nothing of Oslo", "auto", []),
        ("nothing of Oslo", "required", ["weather"]),
        ("the weather of Oslo", "none", []),
        ("Oslo", {"type": "function", "function": {"name": "climate"}}, ["climate"]),
    ],
)
async def test_tools_are_called_by_their_names(
    client: AsyncOpenAI, text: str, choice: Any, names: list[str]
) -> None:
    messages: Any = [{"role": "user", "content": text}]
    asked: Any = {"model": MODEL, "messages": messages, "tools": TOOLS, "tool_choice": choice}
    whole = (await client.chat.completions.create(**asked)).choices[0]
    async with client.chat.completions.stream(**asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0]
    for answer in (whole, streamed):
        calls: list[Any] = [*(answer.message.tool_calls or [])]
        assert [call.function.name for call in calls] == names
        assert {call.function.arguments for call in calls} <= {FILLED}
        assert answer.finish_reason == ("tool_calls" if names else "stop")
        assert bool(answer.message.content) is not bool(names)


async def test_a_tools_result_is_answered(client: AsyncOpenAI) -> None:
    messages: Any = [{"role": "user", "content": "the weather of Oslo"}]
    asked: Any = {"model": MODEL, "tools": TOOLS}
    first = await client.chat.completions.create(messages=messages, **asked)
    (call,) = first.choices[0].message.tool_calls or []
    messages += [first.choices[0].message]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "weather: rain"}]
    last = await client.chat.completions.create(messages=messages, **asked)
    assert last.choices[0].message.content == "You said: weather: rain"


async def test_schemas_are_filled_in(client: AsyncOpenAI) -> None:
    schema = {"name": "weather", "schema": WEATHER}
    form: Any = {"type": "json_schema", "json_schema": schema}
    messages: Any = [{"role": "user", "content": "the weather of Oslo"}]
    completion = await client.chat.completions.create(
        model=MODEL, messages=messages, response_format=form
    )
    assert completion.choices[0].message.content == FILLED


async def test_json_is_written(simulator: Simulator, client: AsyncOpenAI) -> None:
    asked: Any = {"model": MODEL, "messages": MESSAGES, "response_format": {"type": "json_object"}}
    completion = await client.chat.completions.create(**asked)
    assert completion.choices[0].message.content == '{"said":"one two three"}'
    simulator.inject(Fault(kind="prose"))
    completion = await client.chat.completions.create(**asked)
    assert completion.choices[0].message.content == "You said: one two three"


async def test_messages_may_have_the_fields_of_other_servers(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    simulator.inject(Fault(kind="extra_fields", times=2))
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES)
    message = completion.choices[0].message.to_dict()
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    opening = (await anext(stream)).choices[0].delta.to_dict()
    assert message.pop("content") == "You said: one two three"
    assert message.pop("tool_calls") == []
    assert opening.pop("content") == ""
    assert message == opening
    assert message.keys() > {"annotations", "audio", "function_call", "reasoning_content"}


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [("reasoning_content", "I see.", "unknown_parameter"), ("tool_calls", [], "empty_array")],
)
async def test_messages_of_another_form_are_refused(
    client: AsyncOpenAI, field: str, value: object, code: str
) -> None:
    messages: Any = [*MESSAGES, {"role": "assistant", "content": "one", field: value}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert (caught.value.code, caught.value.param) == (code, f"messages[2].{field}")


async def test_no_model_reads_more_than_its_context(
    simulator: Simulator, client: AsyncOpenAI
) -> None:
    messages: Any = [{"role": "user", "content": "a " * (CONTEXT_TOKENS + 1)}]
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert simulator.calls[0].billed is None
