"""The body of a chat completion, in OpenAI's format."""

from typing import Any

from pydantic import Field

from gateway.schemas.base import MAX_CHOICES, ModelOptions, Objects, RequestBody, Texts, Whole
from gateway.schemas.messages import Messages

TRANSPORT = frozenset({"model", "stream", "stream_options"})
# Options of tools, which have no effect in a request without tools.
TOOL_OPTIONS = ("tool_choice", "parallel_tool_calls")


class StreamOptions(RequestBody):
    """Options of a streamed chat. Obfuscation is accepted, but has no effect."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatInput(ModelOptions):
    """A chat without the model and the transport, with the names of OpenAI's request type.

    Each provider's table of verdicts decides how a parameter is treated.
    """

    messages: Messages
    audio: Any = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    function_call: str | dict[str, Any] | None = None
    functions: Objects | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: Whole | None = Field(None, ge=1)
    max_tokens: Whole | None = Field(None, ge=1)
    modalities: Texts | None = None
    n: Whole | None = Field(None, ge=1, le=MAX_CHOICES)
    prediction: Any = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    seed: Whole | None = None
    stop: str | Texts | None = None
    verbosity: str | None = None
    web_search_options: Any = None

    def body(self) -> dict[str, Any]:
        """The given parameters, for the provider."""
        given = self.given(TRANSPORT)
        if not given.get("tools", True):
            _forget_tools(given)
        if not given.get("functions", True):
            del given["functions"]
        if given.get("max_tokens") == given.get("max_completion_tokens"):
            given.pop("max_tokens", None)
        return given


class ChatRequest(ChatInput):
    """The request of a chat completion."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None


def _forget_tools(given: dict[str, Any]) -> None:
    """Drop an empty list of tools and the options of tools: OpenAI refuses both."""
    del given["tools"]
    for name in TOOL_OPTIONS:
        if given.get(name) in ("none", "auto", True, False):
            del given[name]
