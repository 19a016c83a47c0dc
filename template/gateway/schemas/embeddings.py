"""The body of an embedding request, in OpenAI's format."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from gateway.schemas.base import MAX_INPUTS, RequestBody, Texts, Whole

TokenIds = Annotated[list[int], Field(min_length=1, fail_fast=True)]
Inputs = str | Texts | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]


def _few(given: Any) -> Any:
    """Refuse too many inputs. A list of token ids is one input."""
    if isinstance(given, list) and len(given) > MAX_INPUTS and not isinstance(given[0], int):
        raise PydanticCustomError("too_long", f"must have {MAX_INPUTS} inputs at most")
    return given


class EmbeddingInput(RequestBody):
    """An embedding without the model: texts, or token ids."""

    input: Annotated[Inputs, Field(min_length=1), AfterValidator(_few)]
    dimensions: Whole | None = Field(None, ge=1, le=4096)
    encoding_format: Literal["float", "base64"] | None = None
    user: str | None = None

    def body(self) -> dict[str, Any]:
        """The given parameters, for the provider."""
        return self.given({"model"})


class EmbeddingRequest(EmbeddingInput):
    """The request of an embedding."""

    model: str
