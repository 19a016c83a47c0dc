"""The body of a response's request, in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from gateway.schemas.base import ModelOptions, RequestBody, Texts, Whole
from gateway.schemas.response_items import MAX_ITEMS, check_input
from gateway.schemas.response_options import check_format, check_include, check_tools

TRANSPORT = {"model", "stream", "stream_options"}
ITEMS = {"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "items": {"type": "object"}}
Input = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, ITEMS]})]


class ReasoningOptions(RequestBody):
    """Options of the reasoning."""

    context: str | None = None
    effort: str | None = None
    generate_summary: str | None = None
    # Another mode has another price.
    mode: Literal["standard"] | None = None
    summary: str | None = None


class TextOptions(RequestBody):
    """Options of the text."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class StreamOptions(RequestBody):
    """Options of a stream. Obfuscation is accepted, but has no effect."""

    include_obfuscation: bool | None = None


class ResponseRequest(ModelOptions):
    """The request of a response, with the names of OpenAI's request type.

    `gateway/providers/responses/parameters.py` has the verdicts on the parameters.
    """

    model: str
    input: Input
    access_programs: Any = None
    background: bool | None = None
    background_options: Any = None
    context_management: Any = None
    conversation: Any = None
    image: Any = None
    include: Texts | None = None
    instructions: str | None = None
    max_output_tokens: Whole | None = Field(None, ge=1)
    max_tool_calls: Whole | None = None
    previous_response_id: str | None = None
    prompt: Any = None
    reasoning: ReasoningOptions | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    text: TextOptions | None = None
    truncation: Literal["auto", "disabled"] | None = None

    def body(self) -> dict[str, Any]:
        """The given parameters. Raises `InvalidRequest` and `UnsupportedParameter`."""
        check_input(self.input)
        check_include(self.include or [])
        check_tools(self.tools or [], self.tool_choice)
        if self.text and self.text.format:
            check_format(self.text.format)
        given = self.given(TRANSPORT)
        for name in ("reasoning", "text"):
            if options := given.get(name):
                given[name] = options.given()
        if not given.get("tools", True):
            del given["tools"]
        return given
