"""What bodies of requests and answers share."""

import datetime as dt
import re
from collections.abc import Collection
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
)
from pydantic_core import PydanticCustomError

# What a request may ask for: choices of a chat, and texts to embed, as many as OpenAI takes.
MAX_CHOICES, MAX_INPUTS = 16, 2048
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
NO_DAY = "must be a day such as 2030-01-31"
NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"
Time = Annotated[
    dt.datetime,
    PlainSerializer(lambda at: at.isoformat().replace("+00:00", "Z"), return_type=str),
]
"""ISO 8601 in UTC with `Z`."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=NO_CONTROL)]
Entry = TypeVar("Entry")
# Of a list, the first wrong value is told: to tell of each takes long.
Texts = Annotated[list[str], Field(fail_fast=True)]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]


def _whole(given: Any) -> Any:
    """A client of a language without integers writes 50 as 50.0."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Whole = Annotated[int, BeforeValidator(_whole)]
"""A number without a fraction, however it is written."""


def _moment(given: Any) -> Any:
    """A number, also as text, could be seconds or milliseconds."""
    try:
        return dt.datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError as error:
        words = "must be a time such as 2030-01-31T12:00:00Z"
        raise PydanticCustomError("no_time", words) from error


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A time that a client gives: ISO 8601 with its zone."""


def _day(given: Any) -> Any:
    """A number could be seconds, and a time is of some zone."""
    if isinstance(given, dt.datetime) or not isinstance(given, str | dt.date):
        raise PydanticCustomError("no_day", NO_DAY)
    if isinstance(given, str) and not DAY.fullmatch(given):
        raise PydanticCustomError("no_day", NO_DAY)
    return given


Day = Annotated[dt.date, BeforeValidator(_day)]
"""A day, such as 2030-01-31."""


class RequestBody(BaseModel):
    """A body whose unknown fields are refused, and values of another type than the field's.

    A route that FastAPI reads gets an enum as text: such a field says `strict=False`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def given(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The fields that have a value, as they were given; null is as if absent."""
        return {
            name: value
            for name, value in vars(self).items()
            if value is not None and name not in without
        }


class Page(BaseModel, Generic[Entry]):
    """A part of a list; `next_cursor` asks for the next one."""

    data: list[Entry]
    next_cursor: str | None
