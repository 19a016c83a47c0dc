"""A port for a server that starts in a moment."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine that the system gives to no other program until the block ends.

    It is kept by sockets that are bound and do not listen: a server that asks for this very port,
    as servers do with SO_REUSEADDR, gets it, and until then nobody answers there.
    """
    with ExitStack() as stack:
        port = _bound(stack, socket.AF_INET, "127.0.0.1", 0)
        with suppress(OSError):  # A machine without IPv6, or another's port there.
            _bound(stack, socket.AF_INET6, "::1", port)
        yield port


def _bound(stack: ExitStack, family: socket.AddressFamily, host: str, port: int) -> int:
    keeper = stack.enter_context(socket.socket(family))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, port))
    return int(keeper.getsockname()[1])
