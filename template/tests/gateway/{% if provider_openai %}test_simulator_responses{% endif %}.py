"""The official OpenAI client takes the simulator's responses for OpenAI's."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.responses import Response, response_create_params

from tests.openai_types import check, check_events
from tests.simulator.faults import Fault
from tests.simulator.openai_responses import RESPONSE_PARAMETERS
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

MODEL = "gpt-5-mini"
TOOL: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """Point the client at the simulator; a retry would hide a fault."""
    base_url = simulator.environment["OPENAI_BASE_URL"]
    async with AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=0) as client:
        yield client


def test_parameters_are_those_of_the_official_client() -> None:
    given = response_create_params.ResponseCreateParamsStreaming.__annotations__
    assert frozenset(given) == RESPONSE_PARAMETERS


@pytest.mark.parametrize(
    "given",
    [
        {"input": "one two"},
        {"input": "the weather in Rome", "tools": [TOOL]},
        {"input": "one", "reasoning": {}, "include": ["reasoning.encrypted_content"]},
        {"input": "one two three four", "max_output_tokens": 2},
    ],
    ids=str,
)
async def test_answers_and_events_have_the_official_types(
    client: AsyncOpenAI, given: dict[str, Any]
) -> None:
    response = await client.responses.create(model=MODEL, **given)
    check(Response, response.to_dict())
    stream = await client.responses.create(model=MODEL, stream=True, **given)
    events = [event.to_dict() async for event in stream]
    check_events(events)
    last: Any = events[-1]
    assert last["response"]["output"] == [
        {**item, "id": item["id"].replace("0001", "0002")}
        | ({"call_id": item["call_id"].replace("0001", "0002")} if "call_id" in item else {})
        for item in response.to_dict()["output"]
    ]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "assistant", "id": "m1", "content": "x"},
        {"type": "message", "role": "user", "content": "x", "name": "x"},
        {"type": "message", "role": "user", "content": "x", "status": None},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "web_search_call", "id": "ws_1"},
    ],
    ids=str,
)
async def test_an_item_that_openai_refuses_is_refused(client: AsyncOpenAI, item: Any) -> None:
    with pytest.raises(openai.APIStatusError):
        await client.responses.create(model=MODEL, input=[item], store=False)


async def test_a_response_that_fails(simulator: Simulator, client: AsyncOpenAI) -> None:
    simulator.inject(Fault(kind="failed", times=2))
    response = await client.responses.create(model=MODEL, input="one")
    assert response.error is not None
    assert (response.status, response.error.code) == ("failed", "server_error")
    stream = await client.responses.create(model=MODEL, input="one", stream=True)
    assert [event.type async for event in stream][-1] == "response.failed"
