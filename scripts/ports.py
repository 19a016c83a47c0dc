"""A port for a server that starts in a moment."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of 127.0.0.1 that the system hands to nobody else until the block ends.

    It is kept by a socket that is bound and does not listen: a server that asks for this very port,
    as servers do with SO_REUSEADDR, gets it, and until then nobody answers there.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]
