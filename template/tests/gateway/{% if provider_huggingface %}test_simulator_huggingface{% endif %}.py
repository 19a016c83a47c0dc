"""The official Hugging Face client takes the simulator for Hugging Face."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import numpy
import pytest
from aiohttp import ClientSession
from huggingface_hub import (
    AsyncInferenceClient,
    ChatCompletionInput,
    ChatCompletionInputStreamOptions,
    InferenceClient,
    InferenceTimeoutError,
    close_session,
)
from huggingface_hub.errors import BadRequestError, HfHubHTTPError, TextGenerationError

from tests.simulator.faults import Fault
from tests.simulator.huggingface import CHAT_PARAMETERS, PNG
from tests.simulator.server import Simulator

pytestmark = pytest.mark.anyio

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
TASKS = "/hf-inference/models/"
MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "one two three"}]


@pytest.fixture
def base_url(simulator: Simulator) -> str:
    """Give what a service reads from HF_BASE_URL."""
    return simulator.environment["HF_BASE_URL"]


@pytest.fixture
async def client(base_url: str) -> AsyncIterator[AsyncInferenceClient]:
    """Point the client at the simulator's router."""
    async with AsyncInferenceClient(base_url=f"{base_url}/v1", api_key="hf_test") as client:
        yield client


@pytest.fixture
def synchronous(base_url: str) -> Iterator[InferenceClient]:
    """Point the synchronous client there too; its connections outlive it, in the library."""
    with InferenceClient(base_url=f"{base_url}/v1", api_key="hf_test") as client:
        yield client
    close_session()


async def test_chat(simulator: Simulator, client: AsyncInferenceClient) -> None:
    completion = await client.chat_completion(MESSAGES, model=MODEL, max_tokens=4)
    assert completion.model == MODEL
    assert completion.choices[0].message.content == "You said: one two"
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 4
    (call,) = simulator.calls
    assert call.path == "/v1/chat/completions"
    assert call.headers["authorization"] == "Bearer hf_test"
    assert call.billed == {"input_tokens": 3, "output_tokens": 4}


async def test_chat_of_the_synchronous_client(synchronous: InferenceClient) -> None:
    completion = await asyncio.to_thread(synchronous.chat_completion, MESSAGES, model=MODEL)
    assert completion.choices[0].message.content == "You said: one two three"


async def test_stream_with_usage(client: AsyncInferenceClient) -> None:
    stream = await client.chat_completion(
        MESSAGES,
        model=MODEL,
        stream=True,
        stream_options=ChatCompletionInputStreamOptions(include_usage=True),
    )
    *chunks, last = [chunk async for chunk in stream]
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert "".join(pieces) == "You said: one two three"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.total_tokens == 8


async def test_parameters_are_those_of_the_api() -> None:
    assert frozenset(ChatCompletionInput.__dataclass_fields__) == CHAT_PARAMETERS


async def test_unknown_parameter(client: AsyncInferenceClient) -> None:
    with pytest.raises(BadRequestError, match="Unknown parameter: 'surprise'"):
        await client.chat_completion(MESSAGES, model=MODEL, extra_body={"surprise": 1})


async def test_feature_extraction(
    simulator: Simulator, base_url: str, client: AsyncInferenceClient
) -> None:
    path = f"{TASKS}BAAI/bge-small-en-v1.5/pipeline/feature-extraction"
    vectors = await client.feature_extraction(["one", "two"], model=base_url + path)
    one = await client.feature_extraction("one", model=base_url + path)
    assert vectors.shape == (2, 8)
    assert numpy.array_equal(one, vectors[0])
    assert [call.path for call in simulator.calls] == [path, path]
    assert simulator.calls[0].body == {"inputs": ["one", "two"]}
    assert simulator.calls[0].billed == {"seconds": 0.025}


async def test_task_that_answers_json(base_url: str, client: AsyncInferenceClient) -> None:
    url = f"{base_url}{TASKS}owner/sentiment"
    answer: Any = await client.text_classification("I like it", model=url)
    assert [element.label for element in answer] == ["POSITIVE", "NEGATIVE"]


async def test_task_that_answers_bytes(base_url: str) -> None:
    headers = {"Authorization": "Bearer hf_test"}
    async with ClientSession(headers=headers) as session:
        url = f"{base_url}{TASKS}owner/text-to-image"
        async with session.post(url, json={"inputs": "a dot"}) as response:
            assert response.content_type == "image/png"
            assert await response.read() == PNG


async def test_task_that_takes_bytes(
    simulator: Simulator, base_url: str, synchronous: InferenceClient
) -> None:
    url = f"{base_url}{TASKS}owner/classifier"
    assert await asyncio.to_thread(synchronous.image_classification, PNG, model=url)
    assert simulator.calls[0].body is None


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(kind="rate_limited"), 429),
        (Fault(kind="quota"), 402),
        (Fault(kind="bad_request"), 400),
        (Fault(kind="unauthorized"), 401),
        (Fault(kind="error"), 500),
        (Fault(kind="overloaded"), 503),
    ],
    ids=str,
)
async def test_refusals(
    simulator: Simulator, client: AsyncInferenceClient, fault: Fault, status: int
) -> None:
    simulator.inject(fault)
    with pytest.raises(HfHubHTTPError) as caught:
        await client.chat_completion(MESSAGES, model=MODEL)
    assert caught.value.response.status_code == status
    assert caught.value.server_message


async def test_model_that_is_loading(
    simulator: Simulator, base_url: str, client: AsyncInferenceClient
) -> None:
    simulator.inject(Fault(kind="overloaded", path=f"{TASKS}*", seconds=20))
    with pytest.raises(HfHubHTTPError, match="is currently loading") as caught:
        await client.text_classification("text", model=f"{base_url}{TASKS}owner/name")
    assert caught.value.response.json()["estimated_time"] == 20


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="timeout"), InferenceTimeoutError),
        (Fault(kind="drop"), httpx2.RemoteProtocolError),
        (Fault(kind="cut"), httpx2.RemoteProtocolError),
        (Fault(kind="malformed"), ValueError),
    ],
    ids=str,
)
async def test_lost_answers_are_billed(
    simulator: Simulator, base_url: str, fault: Fault, error: type[Exception]
) -> None:
    simulator.inject(fault)
    async with AsyncInferenceClient(base_url=base_url, api_key="hf_test", timeout=0.3) as client:
        with pytest.raises(error):
            await client.chat_completion(MESSAGES, model=MODEL)
    assert simulator.calls[0].billed == {"input_tokens": 3, "output_tokens": 5}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(kind="cut"), httpx2.RemoteProtocolError),
        (Fault(kind="stall"), httpx2.ReadTimeout),
        (Fault(kind="stream_error"), TextGenerationError),
        (Fault(kind="malformed"), ValueError),
    ],
    ids=str,
)
async def test_broken_streams(
    simulator: Simulator, base_url: str, fault: Fault, error: type[Exception]
) -> None:
    simulator.inject(fault)
    async with AsyncInferenceClient(base_url=base_url, api_key="hf_test", timeout=0.3) as client:
        stream = await client.chat_completion(MESSAGES, model=MODEL, stream=True)
        with pytest.raises(error):
            assert [chunk async for chunk in stream] == []
