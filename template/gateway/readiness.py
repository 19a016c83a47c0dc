"""Whether generations can be served now; the log tells when that changes, and why."""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import Any

from gateway.db.revisions import pending
from gateway.engine import Engine
from gateway.errors import ServiceError, cause_of
from gateway.patience import within
from gateway.policy import Model
from gateway.telemetry.logging import log

CHECK_SECONDS = 0.9
# A check writes to the database: however many ask, it is made five times a second at most.
KEPT_SECONDS = 0.2


class Readiness:
    """Checks database, limiter and providers of a service."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.policy_version = engine.policy.version
        self._check: asyncio.Task[str | None] | None = None
        self._kept_until = 0.0
        self._was_ready = True
        self._waiting: dict[str, None] = {}

    async def is_ready(self) -> bool:
        """Whether everything that a generation needs answers within a second."""
        if self._check is None or (self._check.done() and time.monotonic() >= self._kept_until):
            self._check = asyncio.create_task(self._look())
        return await asyncio.shield(self._check) is None

    async def _look(self) -> str | None:
        """Why it is not ready; None if it is."""
        reason = await self._reason()
        self._kept_until = time.monotonic() + KEPT_SECONDS
        if reason and self._was_ready:
            log(logging.WARNING, f"Not ready: {reason}")
        elif not (reason or self._was_ready):
            log(logging.INFO, "Ready again")
        self._was_ready = reason is None
        return reason

    async def _reason(self) -> str | None:
        if any(loop.done() for loop in self._engine.loops):
            return "a background task crashed: sweeper, stop watcher or alerts do not run"
        self._waiting = {}
        try:
            return await within(self._found(), CHECK_SECONDS)
        except ServiceError as error:
            said, *_ = cause_of(error).splitlines()
            return f"{error.code}: {said}"
        except TimeoutError:
            return f"no answer in time from {', '.join(self._waiting)}"

    async def _found(self) -> str | None:
        engine = self._engine
        await asyncio.gather(
            self._named("the limiter", engine.limiter.check()),
            self._named("the database", engine.database.check()),
        )
        if await self._named("the migrations", pending(engine.database)):
            return "a migration is missing: run python -m app migrate"
        if engine.config.production and (weakness := await engine.limiter.weakness()):
            return str(weakness)
        models = _models(engine)
        if not await self._named("the limiter", engine.circuit_breaker.is_any_ready(models)):
            return "every provider is cooling down"
        return None

    async def _named(self, name: str, work: Awaitable[Any]) -> Any:
        self._waiting[name] = None
        result = await work
        self._waiting.pop(name, None)
        return result


def _models(engine: Engine) -> list[Model]:
    """The models that clients use: in production, without those of the offline provider."""
    return [
        model
        for model in engine.policy.models.values()
        if not (engine.config.production and model.provider == "offline")
    ]
