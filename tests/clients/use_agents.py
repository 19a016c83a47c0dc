"""OpenAI's Agents SDK, which asks for responses by default, and for chats where it is told so."""

from collections.abc import Callable
from typing import Any

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel
from report import (
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


Way = type[OpenAIChatCompletionsModel] | type[OpenAIResponsesModel]
WAYS: dict[str, Way] = {"": OpenAIChatCompletionsModel, "responses_": OpenAIResponsesModel}
set_tracing_disabled(True)


def agent(way: Way, key: str = KEY, **options: Any) -> Agent[None]:
    """Make an agent that asks in this way."""
    client = AsyncOpenAI(base_url=URL, api_key=key, max_retries=0)
    return Agent(name="agent", model=way(MODEL, client), **options)


async def chat(way: Way) -> Any:
    return (await Runner.run(agent(way), TEXT)).final_output


async def stream(way: Way) -> Any:
    streamed = Runner.run_streamed(agent(way), TEXT)
    events = [event async for event in streamed.stream_events()]
    raw = [event.data for event in events if event.type == "raw_response_event"]
    return "".join(data.delta for data in raw if data.type == "response.output_text.delta")


async def tools(way: Way) -> list[Any]:
    """Two turns; the second begins with all that the first brought."""
    asked = agent(way, tools=[function_tool(get_weather)])
    first = await Runner.run(asked, FIRST)
    items: Any = [*first.to_input_list(), {"role": "user", "content": SECOND}]
    second = await Runner.run(asked, items)
    return [first.final_output, second.final_output]


async def tools_in_a_stream(way: Way) -> list[Any]:
    """Two turns; the second begins with all that the first brought."""
    asked = agent(way, tools=[function_tool(get_weather)])
    items: Any = []
    texts = []
    for text in (FIRST, SECOND):
        streamed = Runner.run_streamed(asked, [*items, {"role": "user", "content": text}])
        async for _ in streamed.stream_events():
            pass
        items = streamed.to_input_list()
        texts.append(streamed.final_output)
    return texts


async def structured(way: Way) -> Any:
    return (await Runner.run(agent(way, output_type=Weather), TEXT)).final_output.model_dump()


async def max_tokens(way: Way) -> Any:
    settings = ModelSettings(max_tokens=16)
    return (await Runner.run(agent(way, model_settings=settings), TEXT)).final_output


async def unauthorized(way: Way) -> str:
    return await raised_by(lambda: Runner.run(agent(way, "wrong"), TEXT))


async def rate_limited(way: Way) -> str:
    return await raised_by(lambda: Runner.run(agent(way, LIMITED_KEY), TEXT))


async def overflow(way: Way) -> str:
    return await raised_by(lambda: Runner.run(agent(way), TOO_LONG))


def _in(way: Way, name: str, function: Callable[[Way], Any]) -> None:
    async def of_this_way() -> Any:
        return await function(way)

    of_this_way.__name__ = name
    case(of_this_way)


CASES = (
    *(chat, stream, tools, tools_in_a_stream, structured, max_tokens),
    *(unauthorized, rate_limited, overflow),
)

if __name__ == "__main__":
    for prefix, way in WAYS.items():
        for each in CASES:
            _in(way, prefix + each.__name__, each)
    run()
