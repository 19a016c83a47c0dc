"""Predictions that go on after their request was answered."""

import asyncio
import logging
from contextlib import suppress

from app.errors import ServiceError
from app.guard.generation import Generation
from app.guard.pipeline import Guard
from app.telemetry.context import begin
from app.telemetry.logging import log


class Runner:
    """The predictions that run in this process."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, generation: Generation) -> None:
        """Finish `generation` in the background."""
        task = asyncio.create_task(self._run(generation))
        self._tasks[generation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(generation.id, None))

    async def cancel(self, prediction_id: str) -> None:
        """End a prediction, settled and recorded as cancelled, if it runs here."""
        task = self._tasks.get(prediction_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """End all of them."""
        for prediction_id in list(self._tasks):
            await self.cancel(prediction_id)

    async def _run(self, generation: Generation) -> None:
        call = generation.call
        begin(
            request_id=call.request_id,
            user_id=call.principal.user_id,
            prediction_id=generation.id,
            model=generation.model.id,
        )
        try:
            with suppress(ServiceError):
                await self._guard.finish(generation)
        except Exception as error:
            log(logging.ERROR, "The prediction crashed", error=error)
        finally:
            log(logging.INFO, "Prediction ended")
