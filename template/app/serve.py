"""`python -m app serve`: the process that answers."""

import os
import tempfile

import uvicorn

from app.command import fail, run
from app.db import migrate as migrations
from app.errors import StartError
from app.settings import load

# Hosts give 30 seconds between SIGTERM and SIGKILL; what runs may take most of them.
GRACE_SECONDS = 20
STARTUP_FAILED = 3


def serve(*, migrate: bool) -> None:
    """Serve until told to stop. Ends with exit code 1 when the service cannot start."""
    try:
        settings = load()
    except StartError as error:
        fail(str(error))
    if migrate:
        run(lambda session: migrations.upgrade(session.database))
    if settings.web_concurrency > 1:
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="metrics-"))
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
            server_header=False,
        )
    except SystemExit as error:
        raise SystemExit(1 if error.code == STARTUP_FAILED else error.code) from error
