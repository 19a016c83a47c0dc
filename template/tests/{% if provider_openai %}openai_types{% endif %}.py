"""Documents held to the types of the official OpenAI client."""

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import BaseModel

EVENTS: dict[str, type[BaseModel]] = {
    get_args(cls.model_fields["type"].annotation)[0]: cls
    for cls in get_args(get_args(ResponseStreamEvent)[0])
}
# What OpenAI's API answers as well, though its types do not say so.
UNTYPED = {"store", "error"}


def check(cls: type[BaseModel], document: Any) -> BaseModel:
    """`document` in an official type, after a look that it has no field which that has not."""
    model = cls.model_validate(document, strict=True)
    assert not set(_unknown(model)) - UNTYPED
    return model


def check_events(events: Iterable[dict[str, Any]]) -> None:
    """Hold each event to its type, and their order to the official accumulator."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        state.handle_event(check(EVENTS[event["type"]], event))  # type: ignore[arg-type]


def _unknown(value: Any) -> Iterator[str]:
    """The fields that an official type does not have."""
    if isinstance(value, list):
        for item in value:
            yield from _unknown(item)
    if isinstance(value, BaseModel):
        yield from value.model_extra or ()
        for name in type(value).model_fields:
            yield from _unknown(getattr(value, name))
