"""What bodies of requests and answers share."""

import datetime as dt
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, PlainSerializer, StringConstraints

NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"
Time = Annotated[
    dt.datetime,
    PlainSerializer(lambda at: at.isoformat().replace("+00:00", "Z"), return_type=str),
]
"""ISO 8601 in UTC with `Z`."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=NO_CONTROL)]
Entry = TypeVar("Entry")


class RequestBody(BaseModel):
    """A body whose unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Page(BaseModel, Generic[Entry]):
    """A part of a list; `next_cursor` asks for the next one."""

    data: list[Entry]
    next_cursor: str | None
