"""Tells which route held the event loop for long: all others waited meanwhile."""

import logging
import time
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from gateway.telemetry.context import bound_fields
from gateway.telemetry.logging import log

LONG_SECONDS = 0.25
Given = TypeVar("Given")


@types.coroutine
def timed(
    work: Coroutine[Any, Any, Given], route: Callable[[], str | None] | None = None
) -> Generator[Any, Any, Given]:
    """What `work` gives. A run of it between two awaits that takes long is logged."""
    step: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        started = time.perf_counter()
        try:
            awaited = step(value)
        except StopIteration as end:
            given: Given = end.value
            return given
        finally:
            seconds = time.perf_counter() - started
            if seconds > LONG_SECONDS:
                _tell(seconds, route() if route else None)
        try:
            step, value = work.send, (yield awaited)
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step, value = work.throw, error


async def timed_task(work: Coroutine[Any, Any, Given]) -> Given:
    """`timed` work of a task of its own, whose route is known."""
    return await timed(work)


def _tell(seconds: float, route: str | None) -> None:
    log(
        logging.WARNING,
        "The event loop was held: others waited",
        seconds=round(seconds, 3),
        route=route or bound_fields().get("route"),
    )
