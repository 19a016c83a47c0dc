"""The official OpenAI client takes this service for OpenAI."""

import struct
from base64 import b64decode
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from gateway.accounts.audit import command_line
from gateway.accounts.users import Users
from tests.simulator.faults import Fault
from tests.simulator.vectors import embed
from tests.support import POLICY, Service, User

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two"}]
SAID = "You said: one two"
# One model that is built in, and one that the simulator answers.
CHATS = pytest.mark.parametrize("model", ["offline/echo", "openai/chat"])


def official(service: Service, user: User) -> AsyncOpenAI:
    """A user's client for any authentication method. Without retries, which would hide an error."""
    client = AsyncOpenAI(
        base_url=f"{service.url}/v1",
        api_key=user.credential,
        default_headers=user.headers,
        max_retries=0,
    )
    service.stack.push_async_callback(client.close)
    return client


@pytest.fixture
def client(service: Service, user: User) -> AsyncOpenAI:
    return official(service, user)


async def test_models_are_listed(client: AsyncOpenAI) -> None:
    models = [model async for model in client.models.list()]
    assert sorted(model.id for model in models) == sorted(POLICY)
    owners = {model.id: model.owned_by for model in models}
    assert owners["openai/chat"] == "openai"


async def test_one_model_is_retrieved(client: AsyncOpenAI) -> None:
    # The client escapes the slash of the name.
    model = await client.models.retrieve("openai/chat")
    assert (model.id, model.object, model.owned_by) == ("openai/chat", "model", "openai")


@CHATS
async def test_chat(service: Service, client: AsyncOpenAI, model: str) -> None:
    completion = await client.chat.completions.create(model=model, messages=MESSAGES)
    (choice,) = completion.choices
    assert (choice.message.content, choice.finish_reason) == (SAID, "stop")
    assert completion.model == model
    row = await service.prediction()
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == row.input_tokens
    assert completion.usage.completion_tokens == row.output_tokens


@CHATS
async def test_chat_is_streamed(service: Service, client: AsyncOpenAI, model: str) -> None:
    stream = await client.chat.completions.create(
        model=model,
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = [chunk async for chunk in stream]
    deltas = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(deltas) == SAID
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in chunks} == {model}
    assert last.usage is not None
    assert last.usage.completion_tokens == (await service.prediction()).output_tokens


@CHATS
async def test_chat_is_streamed_by_the_clients_helper(client: AsyncOpenAI, model: str) -> None:
    async with client.chat.completions.stream(model=model, messages=MESSAGES) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == SAID


@pytest.mark.parametrize("model", ["offline/embedding", "openai/embedding"])
async def test_embeddings(client: AsyncOpenAI, model: str) -> None:
    # The client requests base64 by default.
    default = await client.embeddings.create(model=model, input=["one", "two"], dimensions=8)
    floats = await client.embeddings.create(
        model=model, input=["one", "two"], dimensions=8, encoding_format="float"
    )
    assert [item.index for item in default.data] == [0, 1]
    for packed, plain in zip(default.data, floats.data, strict=True):
        assert len(plain.embedding) == 8
        assert packed.embedding == pytest.approx(plain.embedding)
    assert default.usage == floats.usage
    assert (default.model, default.usage.prompt_tokens) == (model, 2)


async def test_embeddings_are_those_of_the_provider(service: Service, client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(
        model="openai/embedding", input="one", encoding_format="base64"
    )
    packed: Any = answer.data[0].embedding
    vector = embed("one")
    assert list(struct.unpack(f"<{len(vector)}f", b64decode(packed))) == vector
    assert service.simulator.calls[0].body == {
        "model": "text-embedding-3-small",
        "input": "one",
        "encoding_format": "base64",
    }


async def test_headers_are_those_that_the_client_reads(
    service: Service, client: AsyncOpenAI
) -> None:
    raw = await client.chat.completions.with_raw_response.create(
        model="offline/echo", messages=MESSAGES
    )
    row = await service.prediction()
    assert raw.request_id == row.request_id
    assert raw.headers["X-Prediction-ID"] == row.id
    assert raw.parse().choices[0].message.content == SAID


async def test_a_wrong_credential_is_an_authentication_error(service: Service) -> None:
    stranger = User("", "nobody@example.com", "wrong", {})
    with pytest.raises(openai.AuthenticationError) as caught:
        await official(service, stranger).models.list()
    assert (caught.value.status_code, caught.value.code) == (401, "invalid_credentials")
    assert caught.value.type == "authentication_error"


async def test_a_plan_that_is_gone_is_a_permission_error(service: Service, user: User) -> None:
    await Users(service.database).change(user.id, command_line(), plan="gone")
    with pytest.raises(openai.PermissionDeniedError) as caught:
        await official(service, user).chat.completions.create(
            model="offline/echo", messages=MESSAGES
        )
    assert caught.value.code == "forbidden"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_model_is_a_not_found_error(client: AsyncOpenAI, stream: bool) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="openai/none", messages=MESSAGES, stream=stream)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("openai/none")


async def test_a_wrong_request_is_a_bad_request_error(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as unsupported:
        await client.chat.completions.create(
            model="openai/chat", messages=MESSAGES, service_tier="priority"
        )
    assert unsupported.value.code == "unsupported_parameter"
    assert unsupported.value.param == "service_tier"
    with pytest.raises(openai.BadRequestError) as invalid:
        await client.embeddings.create(model="openai/embedding", input="")
    assert (invalid.value.code, invalid.value.type) == ("invalid_request", "invalid_request_error")


async def test_a_limit_is_a_rate_limit_error(service: Service) -> None:
    client = official(service, await service.create_user("one"))
    await client.chat.completions.create(model="offline/echo", messages=MESSAGES)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model="offline/echo", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("rate_limit_exceeded", "requests")
    assert 1 <= int(caught.value.response.headers["Retry-After"]) <= 60
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_provider_that_fails_is_a_server_error(
    service: Service, client: AsyncOpenAI
) -> None:
    service.simulator.inject(Fault(kind="error", status=500))
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model="openai/chat", messages=MESSAGES)
    assert (caught.value.status_code, caught.value.code) == (502, "provider_error")


async def test_a_stream_that_is_cut_raises_in_the_middle(
    service: Service, client: AsyncOpenAI
) -> None:
    service.simulator.inject(Fault(kind="cut", after=3))
    stream = await client.chat.completions.create(
        model="openai/chat", messages=MESSAGES, stream=True
    )
    heard: list[str] = []

    async def hear() -> None:
        async for chunk in stream:
            heard.extend(choice.delta.content or "" for choice in chunk.choices)

    with pytest.raises(openai.APIError) as caught:
        await hear()
    assert "".join(heard) == "You said:"
    assert caught.value.code == "provider_error"


async def test_the_client_tries_again_by_itself(service: Service, client: AsyncOpenAI) -> None:
    service.simulator.inject(Fault(kind="error", status=500))
    patient = client.with_options(max_retries=1)
    completion = await patient.chat.completions.create(model="openai/chat", messages=MESSAGES)
    assert completion.choices[0].message.content == SAID
    assert [call.status for call in service.simulator.calls] == [500, 200]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_that_is_too_long_is_recognised(
    service: Service, client: AsyncOpenAI, stream: bool
) -> None:
    service.simulator.inject(Fault(kind="too_long"))
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="openai/chat", messages=MESSAGES, stream=stream)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert await service.books() == ("released", "provider_error")
    # LangChain looks for the code in the message, LiteLLM for the beginning of OpenAI's own.
    assert "context_length_exceeded" in str(caught.value)
    assert "this model's maximum context length is" in str(caught.value).lower()
