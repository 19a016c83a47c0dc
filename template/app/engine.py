"""Opens the engine on the parts of this service, for the service itself and for commands."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import gateway
from app import wiring
from app.parts import open_parts
from app.settings import Settings
from gateway import Engine, StartError
from gateway.errors import NO_DATABASE, DatabaseUnavailable, LimiterUnavailable
from gateway.providers.http import open_session
from gateway.rate_limits.base import Limiter


@asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """The engine with a database of its own; at its end, running generations are recorded.

    Raises `StartError` for wrong policy files, without a database, and where limits are in memory
    and another process serves.
    """
    config = settings.gateway
    async with AsyncExitStack() as stack:
        database = wiring.database.open_database(config)
        stack.push_async_callback(database.close)
        session = await stack.enter_async_context(open_session())
        policy, providers = open_parts(settings, session)
        try:
            await stack.enter_async_context(wiring.single_instance_lock(config, database))
        except DatabaseUnavailable as error:
            raise StartError(NO_DATABASE) from error
        limiter = wiring.limiter.open_limiter(config, database)
        stack.push_async_callback(limiter.close)
        await _require_durable_limits(settings, limiter)
        yield await stack.enter_async_context(
            gateway.open_engine(config, policy, providers, database, limiter, session)
        )


async def _require_durable_limits(settings: Settings, limiter: Limiter) -> None:
    """Raise `StartError` in production when the limiter can lose what it counted.

    A limiter that does not answer is no error here: `/readyz` asks it again.
    """
    if settings.production:
        with suppress(LimiterUnavailable):
            if weakness := await limiter.weakness():
                raise StartError(weakness)
