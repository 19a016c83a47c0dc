"""Types that the bodies of requests and answers share."""

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

# The most choices of a chat, and texts to embed, in a request. OpenAI's limit on texts.
MAX_CHOICES, MAX_INPUTS = 16, 2048
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
NO_DAY = "must be a day such as 2030-01-31"
NO_CONTROL = r"^[^\x00-\x1f\x7f-\x9f]+$"


def utc_text(at: dt.datetime) -> str:
    """ISO 8601 in UTC with `Z`."""
    return at.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")


Time = Annotated[dt.datetime, PlainSerializer(utc_text, return_type=str)]
"""ISO 8601 in UTC with `Z`."""
Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=NO_CONTROL)]
Entry = TypeVar("Entry")
# A list reports only its first wrong value: reporting each takes long.
Texts = Annotated[list[str], Field(fail_fast=True)]
Objects = Annotated[list[dict[str, Any]], Field(fail_fast=True)]


def _whole(given: Any) -> Any:
    """Accept 50.0 for 50: some languages have no integers."""
    return int(given) if isinstance(given, float) and given.is_integer() else given


Whole = Annotated[int, BeforeValidator(_whole)]
"""An integer, which may be written with a zero fraction."""


def _moment(given: Any) -> Any:
    """The time in UTC. Refuses numbers, also as text: they could be seconds or milliseconds."""
    try:
        at = dt.datetime.fromisoformat(given) if isinstance(given, str) else given
        return at.astimezone(dt.UTC) if isinstance(at, dt.datetime) and at.tzinfo else at
    except (ValueError, OverflowError) as error:
        words = "must be a time such as 2030-01-31T12:00:00Z"
        raise PydanticCustomError("no_time", words) from error


Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A time from a client: ISO 8601 with a zone."""


def _day(given: Any) -> Any:
    """Refuse numbers, which could be seconds, and times, whose day depends on the zone."""
    if isinstance(given, dt.datetime) or not isinstance(given, str | dt.date):
        raise PydanticCustomError("no_day", NO_DAY)
    if isinstance(given, str) and not DAY.fullmatch(given):
        raise PydanticCustomError("no_day", NO_DAY)
    return given


Day = Annotated[dt.date, BeforeValidator(_day)]
"""A day, such as 2030-01-31."""


class RequestBody(BaseModel):
    """A body that refuses unknown fields and does not convert types.

    FastAPI's own bodies get an enum as text: such a field needs `strict=False`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def given(self, without: Collection[str] = ()) -> dict[str, Any]:
        """The fields that are not null, as they were given, except for `without`."""
        return {
            name: value
            for name, value in vars(self).items()
            if value is not None and name not in without
        }


class Record(BaseModel):
    """A row as it is shown."""

    model_config = ConfigDict(from_attributes=True)


class ModelOptions(RequestBody):
    """The parameters that OpenAI's chats and responses share."""

    metadata: dict[str, Any] | None = None
    moderation: Any = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    tool_choice: str | dict[str, Any] | None = None
    tools: Objects | None = None
    top_logprobs: Whole | None = Field(None, ge=0, le=20)
    top_p: float | None = Field(None, ge=0, le=1)
    user: str | None = None


class Page(BaseModel, Generic[Entry]):
    """A page of a list. `next_cursor` requests the next page; null on the last one."""

    data: list[Entry]
    next_cursor: str | None
