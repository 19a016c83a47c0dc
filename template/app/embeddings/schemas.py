"""The body of an embedding request, in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import Field

from app.schemas import MOST_INPUTS, RequestBody, Texts, Whole

Many = Field(min_length=1, max_length=MOST_INPUTS)
TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]
Inputs = (
    str | Annotated[Texts, Many] | TokenIds | Annotated[list[TokenIds], Many, Field(fail_fast=True)]
)


class EmbeddingInput(RequestBody):
    """Everything but the model: texts, or token ids."""

    input: Annotated[Inputs, Field(min_length=1)]
    dimensions: Whole | None = Field(None, ge=1, le=4096)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    def body(self) -> dict[str, Any]:
        """What was given, for the provider."""
        return self.given({"model"})


class EmbeddingRequest(EmbeddingInput):
    """An embedding as a client asks for it."""

    model: str
