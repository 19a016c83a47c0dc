"""`python -m app serve`: the process that answers."""

import os
import signal
import socket
import sys
import tempfile
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app import wiring
from app.errors import StartError
from app.protocol import BoundedProtocol
from app.settings import Settings, load

# Hosts give 30 seconds between SIGTERM and SIGKILL; what runs may take most of them.
GRACE_SECONDS = 20
EVERYWHERE = "0.0.0.0"


def main() -> None:
    """Serve on PORT until told to stop; end with 1 and a sentence if that is not possible."""
    # A host's request to stop is no failure, also before the server listens to it. Nothing is open
    # yet, and an exception in the middle of an import could become another one there.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        _serve(load())
    except StartError as error:
        sys.exit(str(error))


def become() -> None:
    """Let the process that answers take the place of this one, with nothing that this has loaded.

    A request to stop that comes meanwhile waits until the next one listens.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.execv(sys.executable, [sys.executable, "-m", "app", "serve"])  # noqa: S606


def _serve(settings: Settings) -> None:
    require_exact_limits(settings)
    _require_port(settings.port)
    run = _supervise if settings.web_concurrency > 1 else uvicorn.run
    try:
        run(
            "app.main:create_app",
            factory=True,
            http=BoundedProtocol,
            host=EVERYWHERE,
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


def _supervise(app: str, **options: Any) -> None:
    """As `uvicorn.run` with several processes, which forgets that one of them could not start."""
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        config = uvicorn.Config(app, **options)
        workers = Multiprocess(config, [config.bind_socket()])
        workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        sys.exit(STARTUP_FAILURE)


def _require_port(port: int) -> None:
    """Raise `StartError` where the server could not listen, before anything is opened for it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((EVERYWHERE, port))
        except OSError as error:
            raise StartError(
                f"PORT {port} cannot be used: {error.strerror}. Stop the program that listens "
                "there, or set another PORT in the environment or in .env."
            ) from error


def require_exact_limits(settings: Settings) -> None:
    """Raise `StartError` for more processes than this database and limiter count exactly for."""
    allowed = wiring.MANY_IN_PRODUCTION if settings.production else wiring.MANY_PROCESSES
    if settings.web_concurrency > 1 and not allowed:
        raise StartError(
            "WEB_CONCURRENCY must be 1: limits are exact in one process only with this "
            "database and limiter."
        )
