"""The process that answers on PORT, as `python -m app serve` starts it."""

import signal
import sys

import uvicorn

from app.errors import StartError
from app.settings import load

# Hosts give 30 seconds between SIGTERM and SIGKILL; what runs may take most of them.
GRACE_SECONDS = 20


def main() -> None:
    """Serve until told to stop."""
    # A host's request to stop is no failure, also before the server listens to it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    settings = load()
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


if __name__ == "__main__":
    try:
        main()
    except StartError as error:
        sys.exit(str(error))
