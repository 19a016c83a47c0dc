"""A reserved port for a server that starts later."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def kept_port() -> Iterator[int]:
    """A port of this machine that the system assigns to no other program until the block ends.

    Bound sockets that do not listen reserve it. A server with SO_REUSEADDR can listen on it; until
    then, connections are refused.
    """
    with ExitStack() as stack:
        port = _bound(stack, socket.AF_INET, "127.0.0.1", 0)
        with suppress(OSError):  # No IPv6, or the port is in use there.
            _bound(stack, socket.AF_INET6, "::1", port)
        yield port


def _bound(stack: ExitStack, family: socket.AddressFamily, host: str, port: int) -> int:
    keeper = stack.enter_context(socket.socket(family))
    keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    keeper.bind((host, port))
    return int(keeper.getsockname()[1])


def has_ipv6() -> bool:
    """Whether this machine has the address `::1`."""
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False
