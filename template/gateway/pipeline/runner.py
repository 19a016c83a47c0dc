"""Predictions in the background, and the cancellation of erased generations."""

import asyncio
import logging
from contextlib import suppress

from sqlalchemy import select

from gateway.background import repeat
from gateway.db.engine import Database
from gateway.db.tables import predictions
from gateway.errors import ServiceError
from gateway.pipeline.generation import Generation
from gateway.pipeline.in_flight import InFlight
from gateway.pipeline.pipeline import Pipeline
from gateway.telemetry.context import begin
from gateway.telemetry.logging import log
from gateway.telemetry.scheduler import timed_task

POLL_SECONDS = 0.5
ROUTE = "/v1/predictions"


class Runner:
    """Finishes predictions in the background, and cancels erased generations."""

    def __init__(self, pipeline: Pipeline, in_flight: InFlight, database: Database) -> None:
        self._pipeline = pipeline
        self._in_flight = in_flight
        self._database = database
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, generation: Generation) -> None:
        """Finish `generation` in the background."""
        task = asyncio.create_task(timed_task(self._run(generation)))
        self._tasks[generation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(generation.id, None))

    async def cancel(self, prediction_id: str) -> None:
        """Cancel a generation that runs in this process: settled, and recorded as cancelled.

        A client that waits for it gets the error `Conflict`.
        """
        self._in_flight.erase(prediction_id)
        task = self._tasks.get(prediction_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def run(self) -> None:
        """Cancel erased generations every POLL_SECONDS, until the service ends."""
        await repeat(self.cancel_erased, POLL_SECONDS)

    async def cancel_erased(self) -> None:
        """Cancel generations that were erased by another process. Raises `DatabaseUnavailable`."""
        if not (in_flight := self._in_flight.ids):
            return
        here, erased = predictions.c.id.in_(in_flight), predictions.c.erased_at.is_not(None)
        for row in await self._database.fetch(select(predictions.c.id).where(here, erased)):
            await self.cancel(row.id)

    async def close(self) -> None:
        """Cancel the predictions in the background."""
        await asyncio.gather(*map(self.cancel, list(self._tasks)))

    async def _run(self, generation: Generation) -> None:
        call = generation.call
        begin(
            request_id=call.request_id,
            user_id=call.principal.user_id,
            prediction_id=generation.id,
            model=generation.model.id,
            route=ROUTE,
        )
        try:
            with suppress(ServiceError):
                await self._pipeline.finish(generation)
        except Exception as error:
            log(logging.ERROR, "The prediction crashed", error=error)
        finally:
            log(logging.INFO, "Prediction ended")
