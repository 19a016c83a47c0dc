"""`python -m app serve`: what must be so before the process that answers takes over."""

import asyncio
import os
import signal
import sys
import tempfile

from app import wiring
from app.db.migrate import upgrade
from app.errors import ServiceError, StartError
from app.settings import Settings


def serve_until_stopped(settings: Settings, *, migrate: bool) -> None:
    """Become the process that answers. Raises `StartError` when the service cannot start."""
    # A host's request to stop is no failure, also before the server listens to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if settings.web_concurrency > 1:
        _require_exact_limits(settings)
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))
    if migrate:
        asyncio.run(_migrate(settings))
    # The threads' own heaps would keep what bursts needed.
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")
    # In the place of this process, without what the command line and migrations have loaded. A
    # request to stop that comes meanwhile waits until the next one listens.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execv(sys.executable, [sys.executable, "-m", "app.server"])  # noqa: S606


def _require_exact_limits(settings: Settings) -> None:
    allowed = wiring.MANY_IN_PRODUCTION if settings.production else wiring.MANY_PROCESSES
    if not allowed:
        raise StartError(
            "WEB_CONCURRENCY must be 1: limits are exact in one process only with this "
            "database and limiter."
        )


async def _migrate(settings: Settings) -> None:
    database = wiring.database.open_database(settings)
    try:
        await upgrade(database)
    except ServiceError as error:
        raise StartError(error.message) from error
    finally:
        await database.close()
