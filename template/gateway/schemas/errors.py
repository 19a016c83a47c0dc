"""The body of every error."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    message: str
    type: str
    code: str
    param: str | None


class ErrorBody(BaseModel):
    """Every error of this API."""

    error: ErrorDetail
