"""Predictions while they run: those that a client waits for, and those that it looks for later."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sqlalchemy import Row, select

from app.background import repeat
from app.db.engine import Database
from app.db.tables import predictions
from app.errors import Conflict, ServiceError
from app.guard.generation import Generation
from app.guard.pipeline import Guard
from app.providers.base import Reply
from app.telemetry.context import begin
from app.telemetry.logging import log
from app.telemetry.scheduler import timed_task

LOOK_SECONDS = 0.5
ROUTE = "/v1/predictions"


class Runner:
    """The predictions that run in this process."""

    def __init__(self, guard: Guard, database: Database) -> None:
        self._guard = guard
        self._database = database
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waited_for: dict[str, Generation] = {}

    def start(self, generation: Generation) -> None:
        """Finish `generation` in the background."""
        task = asyncio.create_task(timed_task(self._run(generation)))
        self._tasks[generation.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(generation.id, None))

    async def finish(self, generation: Generation) -> Reply:
        """The answer to `generation`, for a client that waits. `Conflict` when it is erased."""
        self._waited_for[generation.id] = generation
        try:
            return await self._guard.finish(generation)
        finally:
            del self._waited_for[generation.id]

    async def cancel(self, prediction_id: str) -> None:
        """End a prediction, settled and recorded as cancelled, if it runs here."""
        if generation := self._waited_for.get(prediction_id):
            generation.deadline.cut(Conflict("This prediction was erased, and so was cancelled."))
        task = self._tasks.get(prediction_id)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def run(self) -> None:
        """Look, until the service ends."""
        await repeat(self.cancel_erased, LOOK_SECONDS)

    async def cancel_erased(self) -> None:
        """Cancel what was erased through another process."""
        for row in await self._erased():
            await self.cancel(row.id)

    async def close(self) -> None:
        """End those that nobody waits for."""
        await asyncio.gather(*map(self.cancel, list(self._tasks)))

    async def _erased(self) -> Sequence[Row[Any]]:
        running = [*self._tasks, *self._waited_for]
        if not running:
            return ()
        here, erased = predictions.c.id.in_(running), predictions.c.erased_at.is_not(None)
        return await self._database.fetch(select(predictions.c.id).where(here, erased))

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
                await self._guard.finish(generation)
        except Exception as error:
            log(logging.ERROR, "The prediction crashed", error=error)
        finally:
            log(logging.INFO, "Prediction ended")
