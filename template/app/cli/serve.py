"""`python -m app serve`: the process that answers."""

import gc
import logging
import os
import signal
import socket
import sys
import tempfile
from contextlib import ExitStack, suppress

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from app import wiring
from app.settings import Settings, load
from gateway.errors import StartError
from gateway.http.header_limits import BoundedProtocol
from gateway.http.listeners import listen, unusable

# Hosts give 30 seconds between SIGTERM and SIGKILL; what runs may take most of them.
GRACE_SECONDS = 20
# Longer than the 60 or 75 seconds for which proxies keep idle connections: the side that sends must
# be the first to close one, or the request that it sends at that moment is lost.
KEEP_ALIVE_SECONDS = 90
# One for each family: a socket for both shows an IPv4 caller as ::ffff:192.0.2.1, an address that
# FORWARDED_ALLOW_IPS and counts of attempts do not have.
EVERYWHERE = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}
# This machine alone: outside of production the service may have no credentials worth the name.
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

logger = logging.getLogger("app")


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


class Server(uvicorn.Server):
    """uvicorn's, which tells neither where it listens nor why not, when it is given sockets."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:  # Another program was faster.
            logger.error("%s", unusable(self.config.port, error.strerror))
            await self.lifespan.shutdown()
            sys.exit(STARTUP_FAILURE)
        for listener in sockets or ():
            host, port, *_ = listener.getsockname()
            logger.info("Listening on %s", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


def _serve(settings: Settings) -> None:
    require_exact_limits(settings)
    run = _supervise if settings.web_concurrency > 1 else _run
    with ExitStack() as opened:
        listeners = listen(EVERYWHERE if settings.production else LOOPBACK, settings.port)
        for listener in listeners:
            opened.enter_context(listener)
        try:
            run(server_config(settings), listeners)
        except SystemExit as error:
            raise SystemExit(1 if error.code else 0) from error


def server_config(settings: Settings) -> uvicorn.Config:
    """The arguments of uvicorn."""
    return uvicorn.Config(
        "app.main:create_app",
        factory=True,
        http=BoundedProtocol,
        ws="none",  # there is no WebSocket here: an upgrade is not done
        port=settings.port,
        workers=settings.web_concurrency,
        forwarded_allow_ips=settings.forwarded_allow_ips,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,
        access_log=False,  # the service's own line says more
        server_header=False,
    )


def _run(config: uvicorn.Config, listeners: list[socket.socket]) -> None:
    """As `uvicorn.run`, on given sockets."""
    config.load_app()
    gc.enable()  # `app/__main__.py` turned it off for the start.
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run(listeners)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _supervise(config: uvicorn.Config, listeners: list[socket.socket]) -> None:
    """As `uvicorn.run` with several processes, which forgets that one of them could not start."""
    gc.enable()
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        workers = Multiprocess(config, listeners)
        workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        sys.exit(STARTUP_FAILURE)


def require_exact_limits(settings: Settings) -> None:
    """Raise `StartError` for more processes than this database and limiter count exactly for."""
    allowed = wiring.MANY_IN_PRODUCTION if settings.production else wiring.MANY_PROCESSES
    if settings.web_concurrency > 1 and not allowed:
        raise StartError(
            "WEB_CONCURRENCY must be 1: limits are exact in one process only with this "
            "database and limiter."
        )
