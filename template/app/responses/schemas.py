"""The body of a response's request, in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from app.errors import UnsupportedParameter
from app.responses.items import check_input
from app.responses.options import check_format, check_include, check_tools
from app.responses.parameters import REFUSED
from app.schemas import RequestBody

TRANSPORT = {"model", "store", "stream", "stream_options"}
# Asks for what happens anyway.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "service_tier": ("auto", "default"),
    "prompt_cache_retention": ("in_memory",),
}
ITEMS = {"type": "array", "items": {"type": "object"}}
Input = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, ITEMS]})]


class ReasoningOptions(RequestBody):
    context: str | None = None
    effort: str | None = None
    generate_summary: str | None = None
    mode: Literal["standard"] | None = None
    summary: str | None = None


class TextOptions(RequestBody):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class StreamOptions(RequestBody):
    include_obfuscation: bool | None = None


class ResponseRequest(RequestBody):
    """A response as a client asks for it; nothing is kept for a later request."""

    model_config = ConfigDict(extra="allow")

    model: str
    input: Input
    include: list[str] | None = None
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    max_tool_calls: int | None = None
    metadata: dict[str, str] | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    reasoning: ReasoningOptions | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    text: TextOptions | None = None
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    top_p: float | None = Field(None, ge=0, le=1)
    truncation: Literal["auto", "disabled"] | None = None
    user: str | None = None

    def body(self) -> dict[str, Any]:
        """What was given, for the provider. Raises `InvalidRequest`, `UnsupportedParameter`."""
        for name, value in (self.model_extra or {}).items():
            _refuse(name, value)
        check_input(self.input)
        check_tools(self.tools or [], self.tool_choice)
        check_include(self.include or [])
        if self.text and self.text.format:
            check_format(self.text.format)
        exclude = TRANSPORT | set(self.model_extra or ())
        return self.model_dump(exclude_unset=True, exclude_none=True, exclude=exclude)


def _refuse(name: str, value: Any) -> None:
    if value is not None and value not in HARMLESS.get(name, ()):
        name = name[:100]
        reason = REFUSED.get(name, "OpenAI has none of this name.")
        message = f"The parameter {name!r} is not supported. {reason}"
        raise UnsupportedParameter(message, param=name)
