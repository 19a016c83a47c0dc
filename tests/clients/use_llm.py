"""LLM, set up with the file in which its users name other servers than OpenAI's."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

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

MODELS = [
    {"model_id": name, "model_name": MODEL, "api_base": URL, "api_key_name": "service"}
    | {"supports_schema": True, "supports_tools": True, "responses": name == "responding"}
    for name in ("asked", "responding")
]


class Weather(BaseModel):
    """What a structured answer holds."""

    city: str
    days: int


def model(name: str = "asked") -> Any:
    """Find the model, and let its client not try again."""
    found = llm.get_model(name)
    get_client: Callable[..., Any] = type(found).get_client
    found.get_client = lambda *a, **k: get_client(found, *a, **k).with_options(max_retries=0)
    return found


def two_turns(asked: Any) -> list[str]:
    """Two turns of a conversation with a tool."""
    conversation = asked.conversation(tools=[get_weather])
    return [conversation.chain(text, key=KEY).text() for text in (FIRST, SECOND)]


@case
def chat() -> Any:
    return model().prompt(TEXT, key=KEY, stream=False).text()


@case
def stream() -> str:
    return "".join(model().prompt(TEXT, key=KEY))


@case
def tools() -> list[str]:
    return two_turns(model())


@case
def structured() -> Any:
    return json.loads(model().prompt(TEXT, key=KEY, schema=Weather).text())


@case
def max_tokens() -> Any:
    return model().prompt(TEXT, key=KEY, max_tokens=3, stream=False).text()


@case
def embeddings() -> list[int]:
    embed = OpenAIEmbeddingModel("embedding", EMBEDDING_MODEL)
    return [len(vector) for vector in embed.embed_batch([TEXT, "four"], key=KEY)]


@case
def unauthorized() -> str:
    return raised(lambda: model().prompt(TEXT, key="wrong").text())


@case
def rate_limited() -> str:
    return raised(lambda: model().prompt(TEXT, key=LIMITED_KEY).text())


@case
def overflow() -> str:
    return raised(lambda: model().prompt(TOO_LONG, key=KEY).text())


@case
def responses_chat() -> Any:
    return model("responding").prompt(TEXT, key=KEY, stream=False).text()


@case
def responses_stream() -> str:
    return "".join(model("responding").prompt(TEXT, key=KEY))


@case
def responses_tools() -> list[str]:
    return two_turns(model("responding"))


@case
def responses_overflow() -> str:
    return raised(lambda: model("responding").prompt(TOO_LONG, key=KEY).text())


if __name__ == "__main__":
    with TemporaryDirectory() as directory:
        # JSON is YAML; both are read when it is imported, or before the first model is found.
        (Path(directory) / "extra-openai-models.yaml").write_text(json.dumps(MODELS))
        os.environ |= {"LLM_USER_PATH": directory, "OPENAI_BASE_URL": URL}
        import llm
        from llm.default_plugins.openai_models import OpenAIEmbeddingModel

        run()
