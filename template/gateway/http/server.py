"""The server process: uvicorn on the service's own sockets, alone or with several workers."""

import gc
import logging
import os
import socket
import sys
import tempfile
from contextlib import suppress

import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from gateway.http.header_limits import BoundedProtocol
from gateway.http.listeners import unusable

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


class Server(uvicorn.Server):
    """uvicorn's server, which also logs where it listens, or why it cannot."""

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


def server_config(app: str, port: int, processes: int, proxies: str) -> uvicorn.Config:
    """The arguments of uvicorn, for the factory `app`; `proxies` may name a caller's address."""
    return uvicorn.Config(
        app,
        factory=True,
        http=BoundedProtocol,
        ws="none",  # there is no WebSocket here: an upgrade is not done
        port=port,
        workers=processes,
        forwarded_allow_ips=proxies,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,
        access_log=False,  # the service's own line says more
        server_header=False,
    )


def run(config: uvicorn.Config, listeners: list[socket.socket]) -> None:
    """As `uvicorn.run`, on given sockets."""
    config.load_app()
    gc.enable()  # `app/__main__.py` turned it off for the start.
    server = Server(config)
    with suppress(KeyboardInterrupt):
        server.run(listeners)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def supervise(config: uvicorn.Config, listeners: list[socket.socket]) -> None:
    """As `uvicorn.run` with several processes, which forgets that one of them could not start."""
    gc.enable()
    with tempfile.TemporaryDirectory(prefix="metrics-") as folder:
        # Where worker processes put their metrics, for any of them to tell all.
        os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)
        workers = Multiprocess(config, listeners)
        workers.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in workers.processes):
        sys.exit(STARTUP_FAILURE)
