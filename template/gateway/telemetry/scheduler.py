"""Logs the routes that block the event loop, during which all other requests wait."""

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
    """The result of `work`. Logs a step between two awaits that takes over `LONG_SECONDS`."""
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
                _log_blocked(seconds, route() if route else None)
        try:
            step, value = work.send, (yield awaited)
        except GeneratorExit:
            work.close()
            raise
        except BaseException as error:
            step, value = work.throw, error


async def timed_task(work: Coroutine[Any, Any, Given]) -> Given:
    """As `timed`, for work in its own task, which has the bound route."""
    return await timed(work)


def _log_blocked(seconds: float, route: str | None) -> None:
    log(
        logging.WARNING,
        "The event loop was held: others waited",
        seconds=round(seconds, 3),
        route=route or bound_fields().get("route"),
    )
