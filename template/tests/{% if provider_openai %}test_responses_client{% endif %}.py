"""The official OpenAI client takes this service for OpenAI when it asks for responses."""

import copy
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI
from openai.types.responses import Response

from app.providers.responses.writing import ResponseWriter
from tests.openai_types import check, check_events
from tests.simulator.faults import Fault
from tests.support import Service, User
from tests.test_openai_client import official

SAID = "You said: one two"
CHATS = pytest.mark.parametrize("model", ["offline/echo", "openai/chat"])


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


async def test_a_stream_that_is_cut_raises_in_the_middle(
    service: Service, client: AsyncOpenAI
) -> None:
    service.simulator.inject(Fault(kind="cut", after=3))
    stream = await client.responses.create(model="openai/chat", input="one two", stream=True)
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
    events = copy.deepcopy(events + writer.end())
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
    """The texts that the deltas make, part by part."""
    parts: dict[Any, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            place = event["output_index"], event.get("content_index")
            parts[place] = parts.get(place, "") + event["delta"]
    return list(parts.values())


def written(response: dict[str, Any]) -> list[str]:
    """The texts of a response, part by part."""
    texts = []
    for item in response["output"]:
        texts += [item["arguments"]] if "arguments" in item else []
        texts += [part.get("text", part.get("refusal")) for part in item.get("content", ())]
    return texts
