"""LangChain's package for OpenAI: chats, responses, and embeddings of token ids."""

import functools
import operator
import os
from collections.abc import Callable
from importlib.metadata import distribution
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel
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
    raised,
    run,
)


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


# The tokenizer of embeddings is fetched from the network, unless it lies here, as LiteLLM ships it.
TOKENIZERS = distribution("litellm").locate_file("litellm/litellm_core_utils/tokenizers")
os.environ["TIKTOKEN_CACHE_DIR"] = str(TOKENIZERS)


def model(key: str = KEY, **options: Any) -> ChatOpenAI:
    """Make the chat model of a user."""
    return ChatOpenAI(model=MODEL, base_url=URL, api_key=key, max_retries=0, **options)


weather = tool(get_weather)


def two_turns(answer: Callable[[list[Any]], Any]) -> list[str]:
    """Two turns with a tool; each message is sent back as it came."""
    messages: list[Any] = []
    texts = []
    for text in (FIRST, SECOND):
        messages.append(HumanMessage(text))
        messages.append(answer(messages))
        messages += [weather.invoke(call) for call in messages[-1].tool_calls]
        messages.append(answer(messages))
        texts.append(messages[-1].text)
    return texts


def streamed(asked: Any) -> Callable[[list[Any]], Any]:
    """Put the chunks of a stream together, as the client does."""
    return lambda messages: functools.reduce(operator.add, asked.stream(messages))


@case
def chat() -> Any:
    return model().invoke(TEXT).text


@case
def stream() -> str:
    return "".join(chunk.text for chunk in model().stream(TEXT))


@case
def tools() -> list[str]:
    return two_turns(model().bind_tools([weather]).invoke)


@case
def tools_in_a_stream() -> list[str]:
    return two_turns(streamed(model().bind_tools([weather])))


@case
def structured() -> Any:
    return model().with_structured_output(Weather).invoke(TEXT).model_dump()


@case
def structured_by_a_tool() -> Any:
    way = model().with_structured_output(Weather, method="function_calling")
    return way.invoke(TEXT).model_dump()


@case
def max_tokens() -> Any:
    return model(max_tokens=3).invoke(TEXT).text


@case
def embeddings() -> list[int]:
    """Of token ids, which the client makes of texts."""
    embed = OpenAIEmbeddings(model=EMBEDDING_MODEL, base_url=URL, api_key=KEY, max_retries=0)
    return [len(vector) for vector in embed.embed_documents([TEXT, "four"])]


@case
def unauthorized() -> str:
    return raised(lambda: model("wrong").invoke(TEXT))


@case
def rate_limited() -> str:
    return raised(lambda: model(LIMITED_KEY).invoke(TEXT))


@case
def overflow() -> str:
    return raised(lambda: model().invoke(TOO_LONG))


@case
def responses_chat() -> Any:
    return model(use_responses_api=True).invoke(TEXT).text


@case
def responses_stream() -> str:
    return "".join(chunk.text for chunk in model(use_responses_api=True).stream(TEXT))


@case
def responses_tools() -> list[str]:
    return two_turns(model(use_responses_api=True).bind_tools([weather]).invoke)


@case
def responses_tools_in_a_stream() -> list[str]:
    return two_turns(streamed(model(use_responses_api=True).bind_tools([weather])))


@case
def responses_structured() -> Any:
    return model(use_responses_api=True).with_structured_output(Weather).invoke(TEXT).model_dump()


@case
def responses_overflow() -> str:
    return raised(lambda: model(use_responses_api=True).invoke(TOO_LONG))


if __name__ == "__main__":
    run()
