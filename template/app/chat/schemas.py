"""The body of a chat completion, in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Discriminator, Field, Tag

from app.schemas import RequestBody

MOST_MESSAGES = 2048
PART_TYPES = frozenset({"text", "refusal", "image_url"})


class TextPart(RequestBody):
    type: Literal["text"]
    text: str


class RefusalPart(RequestBody):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(RequestBody):
    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(RequestBody):
    type: Literal["image_url"]
    image_url: ImageUrl


class OtherPart(BaseModel):
    """Content of another type: the guard refuses it, as its cost is not declared."""

    type: str


def _type_of(part: Any) -> str:
    kind = part.get("type") if isinstance(part, dict) else getattr(part, "type", None)
    return kind if isinstance(kind, str) and kind in PART_TYPES else "other"


def _form_of(content: Any) -> str:
    return "text" if isinstance(content, str) else "parts"


# Told apart by hand, so that an error names the field that is wrong and not every form.
Part = Annotated[
    Annotated[TextPart, Tag("text")]
    | Annotated[RefusalPart, Tag("refusal")]
    | Annotated[ImagePart, Tag("image_url")]
    | Annotated[OtherPart, Tag("other")],
    Discriminator(_type_of),
]
Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], Tag("parts")], Discriminator(_form_of)
]


class Message(RequestBody):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class StreamOptions(RequestBody):
    include_usage: bool = False


class ChatInput(RequestBody):
    """Everything but the model and the transport. Each provider's table says what it passes on."""

    messages: list[Message] = Field(min_length=1, max_length=MOST_MESSAGES)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    max_completion_tokens: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=16)
    parallel_tool_calls: bool | None = None
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    reasoning_effort: str | None = None
    response_format: dict[str, Any] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    tool_choice: str | dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    top_p: float | None = Field(None, ge=0, le=1)
    user: str | None = None
    verbosity: str | None = None

    def body(self) -> dict[str, Any]:
        """What was given, for the provider."""
        transport = {"model", "stream", "stream_options"}
        return self.model_dump(exclude_unset=True, exclude_none=True, exclude=transport)


class ChatRequest(ChatInput):
    """A chat completion as a client asks for it."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
