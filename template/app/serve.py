"""`python -m app serve`: the process that answers."""

import asyncio
import os
import signal
import sys
import tempfile

import uvicorn

from app import wiring
from app.db.migrate import upgrade
from app.errors import ServiceError, StartError
from app.settings import Settings

# Hosts give 30 seconds between SIGTERM and SIGKILL; what runs may take most of them.
GRACE_SECONDS = 20


def serve_until_stopped(settings: Settings, *, migrate: bool) -> None:
    """Serve on PORT. Raises `StartError` when the service cannot start."""
    # A host's request to stop is no failure, also before the server listens to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if settings.web_concurrency > 1:
        _require_exact_limits(settings)
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))
    if migrate:
        asyncio.run(_migrate(settings))
    try:
        uvicorn.run(
            "app.main:create_app",
            factory=True,
            host="0.0.0.0",
            port=settings.port,
            workers=settings.web_concurrency,
            forwarded_allow_ips=settings.forwarded_allow_ips,
            timeout_graceful_shutdown=GRACE_SECONDS,
            log_config=None,
            access_log=False,  # the service's own line says more
            server_header=False,
        )
    except SystemExit as error:
        raise SystemExit(1 if error.code else 0) from error


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
