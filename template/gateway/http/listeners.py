"""The sockets that the service listens on."""

import errno
import socket
from collections.abc import Mapping

from gateway.errors import StartError

SEND_BYTES = 128 * 1024
# What a machine without a family says.
ABSENT = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT}


def listen(hosts: Mapping[socket.AddressFamily, str], port: int) -> list[socket.socket]:
    """Sockets for the host of each family, IPv4 and IPv6, that this machine has.

    They are bound before anything is opened for them. Raises `StartError`.
    """
    listeners: list[socket.socket] = []
    for family, host in hosts.items():
        try:
            listeners.append(_bound(family, host, port))
        except OSError as error:
            if error.errno not in ABSENT:
                for listener in listeners:
                    listener.close()
                raise unusable(port, error.strerror) from error
        else:
            port = listeners[0].getsockname()[1]
    if not listeners:
        raise unusable(port, "This machine has neither IPv4 nor IPv6")
    return listeners


def unusable(port: int, why: str | None) -> StartError:
    """The error for a port that cannot be used."""
    return StartError(
        f"PORT {port} cannot be used: {why}. Stop the program that listens there, or set another "
        "PORT in the environment or in .env."
    )


def _bound(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    # Of a socket that does not say TCP, asyncio lets small answers wait for others (Nagle).
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: what a client does not read would grow to several megabytes.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener
