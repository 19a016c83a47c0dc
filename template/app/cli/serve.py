"""`python -m app serve`: the process that answers."""

import os
import signal
import sys
from contextlib import ExitStack

import uvicorn

from app import wiring
from app.settings import Settings, load
from gateway.errors import StartError
from gateway.http import server
from gateway.http.listeners import listen


def main() -> None:
    """Serve on PORT until a signal stops it; exit with 1 and a sentence if that is not possible."""
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
    run = server.supervise if settings.web_concurrency > 1 else server.run
    with ExitStack() as opened:
        hosts = server.EVERYWHERE if settings.production else server.LOOPBACK
        listeners = listen(hosts, settings.port)
        for listener in listeners:
            opened.enter_context(listener)
        try:
            run(_config(settings), listeners)
        except SystemExit as error:
            raise SystemExit(1 if error.code else 0) from error


def _config(settings: Settings) -> uvicorn.Config:
    proxies = settings.forwarded_allow_ips
    return server.server_config(
        "app.main:create_app", settings.port, settings.web_concurrency, proxies
    )


def require_exact_limits(settings: Settings) -> None:
    """Raise `StartError` for more processes than this database and limiter count exactly for."""
    allowed = wiring.MANY_IN_PRODUCTION if settings.production else wiring.MANY_PROCESSES
    if settings.web_concurrency > 1 and not allowed:
        raise StartError(
            "WEB_CONCURRENCY must be 1: limits are exact in one process only with this "
            "database and limiter."
        )
