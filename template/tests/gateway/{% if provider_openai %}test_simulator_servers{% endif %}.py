"""The simulator as each server that speaks OpenAI's API, read by the official client."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.simulator.dialect import Speaking
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.simulator.servers import BY_NAME, DIALECTS, NEW, OLD, UNKNOWN_MODEL, Dialect

pytestmark = pytest.mark.anyio

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three"}]
USAGE = {"stream_options": {"include_usage": True}}


@pytest.fixture(params=DIALECTS, ids=lambda dialect: dialect.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """Give each server in turn."""
    chosen: Dialect = request.param
    return chosen


@pytest.fixture
async def speaking(dialect: Dialect) -> AsyncIterator[Simulator]:
    """Start a simulator that speaks as the server."""
    async with Simulator([partial(Speaking, dialect)]) as running:
        yield running


@pytest.fixture
async def client(speaking: Simulator) -> AsyncIterator[AsyncOpenAI]:
    """Point the official client at it."""
    base_url = speaking.environment["OPENAI_BASE_URL"]
    async with AsyncOpenAI(api_key="sk-test", base_url=base_url, max_retries=0) as client:
        yield client


async def test_chat(dialect: Dialect, client: AsyncOpenAI) -> None:
    completion = await client.chat.completions.create(model="m", messages=MESSAGES)
    content: Any = completion.choices[0].message.content
    text = content[0]["text"] if dialect.content_parts else content
    assert text == "You said: one two three"
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (3, 5)


@pytest.mark.parametrize("asked", [True, False])
async def test_stream(dialect: Dialect, client: AsyncOpenAI, asked: bool) -> None:
    """The usage comes once, in the server's place; some servers send it without being asked."""
    options: Any = USAGE if asked else {}
    stream = await client.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, **options
    )
    chunks = [chunk async for chunk in stream]
    deltas: list[Any] = [c.delta.content for chunk in chunks for c in chunk.choices]
    texts = [d[0]["text"] if isinstance(d, list) else d or "" for d in deltas]
    assert "".join(texts) == "You said: one two three"
    counts = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert counts == [5] * (asked or dialect.usage_place == "last")
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == [
        "stop"
    ]


async def test_the_first_and_the_last_chunk_hold_what_the_server_adds() -> None:
    seen = {}
    for name in ("azure", "groq", "llama.cpp", "deepseek", "openrouter"):
        async with Simulator([partial(Speaking, BY_NAME[name])]) as simulator:
            url = simulator.environment["OPENAI_BASE_URL"]
            body = {"model": "m", "messages": MESSAGES, "stream": True, **USAGE}
            headers = {"Authorization": "Bearer x"}
            async with (
                aiohttp.ClientSession(headers=headers) as session,
                session.post(f"{url}/chat/completions", json=body) as response,
            ):
                seen[name] = await response.text()
    assert '"prompt_filter_results"' in seen["azure"].splitlines()[0]
    assert '"choices":[]' in seen["azure"].splitlines()[0]
    assert '"x_groq":{"id":"req_1","usage":{' in seen["groq"]
    assert '"timings":{' in seen["llama.cpp"]
    assert seen["deepseek"].startswith(": keep-alive\n\n")
    assert '"prompt_cache_hit_tokens":0' in seen["deepseek"]
    assert seen["openrouter"].startswith(": OPENROUTER PROCESSING\n\n")
    assert '"cost":' in seen["openrouter"]


@pytest.mark.parametrize("name", [OLD, NEW])
async def test_spellings_of_the_largest_output(
    dialect: Dialect, client: AsyncOpenAI, name: str
) -> None:
    limit: Any = {name: 2}
    create = client.chat.completions.create(model="m", messages=MESSAGES, **limit)
    if dialect.limits[name] == "refuses":
        with pytest.raises(openai.APIStatusError) as refused:
            await create
        assert refused.value.status_code in {400, 422}
        assert name in refused.value.response.text
        return
    completion = await create
    assert completion.usage is not None
    heeded = dialect.limits[name] == "heeds"
    assert completion.usage.completion_tokens == (2 if heeded else 5)


async def test_an_unknown_model(dialect: Dialect, client: AsyncOpenAI) -> None:
    create = client.chat.completions.create(model=UNKNOWN_MODEL, messages=MESSAGES)
    if dialect.unknown_model is None:
        assert (await create).choices
        return
    with pytest.raises(openai.APIStatusError) as refused:
        await create
    assert refused.value.status_code == dialect.unknown_model.status
    assert refused.value.response.json() == dialect.error(dialect.unknown_model)


async def test_a_key_is_needed_where_the_server_needs_one(
    dialect: Dialect, client: AsyncOpenAI, speaking: Simulator
) -> None:
    create = client.chat.completions.create(
        model="m", messages=MESSAGES, extra_headers={"Authorization": openai.omit}
    )
    if not dialect.needs_key:
        assert (await create).choices
        speaking.inject(Fault(kind="unauthorized"))
        create = client.chat.completions.create(model="m", messages=MESSAGES)
    with pytest.raises(openai.AuthenticationError) as refused:
        await create
    assert isinstance(refused.value.response.json(), dict)
