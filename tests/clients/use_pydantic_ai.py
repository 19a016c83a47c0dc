"""Pydantic AI: chats, responses and embeddings."""

from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings
from report import (
    EMBEDDING_MODEL,
    FIRST,
    KEY,
    LIMITED_KEY,
    MODEL,
    SECOND,
    TEXT,
    TOO_LONG,
    URL,
    case,
    get_weather,
    raised_by,
    run,
)


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


def provider(key: str = KEY) -> OpenAIProvider:
    """Ask as a user."""
    return OpenAIProvider(openai_client=AsyncOpenAI(base_url=URL, api_key=key, max_retries=0))


def agent(key: str = KEY, **options: Any) -> Agent[None, Any]:
    """Make an agent of chats."""
    return Agent(OpenAIChatModel(MODEL, provider=provider(key)), **options)


def responding(**options: Any) -> Agent[None, Any]:
    """Make an agent of responses."""
    return Agent(OpenAIResponsesModel(MODEL, provider=provider()), **options)


async def text_of(asked: Agent[None, Any]) -> str:
    """Read a stream."""
    async with asked.run_stream(TEXT) as streamed:
        return "".join([piece async for piece in streamed.stream_text(delta=True)])


async def two_turns(asked: Agent[None, Any]) -> list[Any]:
    """Two turns; the second begins with all messages of the first."""
    first = await asked.run(FIRST)
    second = await asked.run(SECOND, message_history=first.all_messages())
    return [first.output, second.output]


async def two_streamed_turns(asked: Agent[None, Any]) -> list[Any]:
    """Two turns as streams; the second begins with all messages of the first."""
    history: Any = None
    outputs = []
    for text in (FIRST, SECOND):
        async with asked.run_stream(text, message_history=history) as streamed:
            outputs.append(await streamed.get_output())
        history = streamed.all_messages()
    return outputs


@case
async def chat() -> Any:
    return (await agent().run(TEXT)).output


@case
async def stream() -> str:
    return await text_of(agent())


@case
async def tools() -> list[Any]:
    return await two_turns(agent(tools=[get_weather]))


@case
async def tools_in_a_stream() -> list[Any]:
    return await two_streamed_turns(agent(tools=[get_weather]))


@case
async def structured() -> Any:
    return (await agent(output_type=NativeOutput(Weather)).run(TEXT)).output.model_dump()


@case
async def structured_by_a_tool() -> Any:
    return (await agent(output_type=Weather).run(TEXT)).output.model_dump()


@case
async def max_tokens() -> Any:
    return (await agent(model_settings=ModelSettings(max_tokens=3)).run(TEXT)).output


@case
async def embeddings() -> list[int]:
    embedder = Embedder(OpenAIEmbeddingModel(EMBEDDING_MODEL, provider=provider()))
    return [len(vector) for vector in (await embedder.embed_documents([TEXT, "four"])).embeddings]


@case
async def unauthorized() -> str:
    return await raised_by(lambda: agent("wrong").run(TEXT))


@case
async def rate_limited() -> str:
    return await raised_by(lambda: agent(LIMITED_KEY).run(TEXT))


@case
async def overflow() -> str:
    return await raised_by(lambda: agent().run(TOO_LONG))


@case
async def responses_chat() -> Any:
    return (await responding().run(TEXT)).output


@case
async def responses_stream() -> str:
    return await text_of(responding())


@case
async def responses_tools() -> list[Any]:
    return await two_turns(responding(tools=[get_weather]))


@case
async def responses_tools_in_a_stream() -> list[Any]:
    return await two_streamed_turns(responding(tools=[get_weather]))


@case
async def responses_structured() -> Any:
    return (await responding(output_type=NativeOutput(Weather)).run(TEXT)).output.model_dump()


@case
async def responses_overflow() -> str:
    return await raised_by(lambda: responding().run(TOO_LONG))


if __name__ == "__main__":
    run()
