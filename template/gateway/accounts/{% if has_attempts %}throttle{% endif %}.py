"""What log-ins that are counted share: the error, and where a log-in comes from."""

import ipaddress

from gateway.errors import ServiceError


class TooManyAttempts(ServiceError):
    status, code = 429, "too_many_attempts"


def too_many(seconds: float) -> TooManyAttempts:
    return TooManyAttempts("Too many log-ins; wait and try again.", retry_after=seconds)


def network_of(address: str) -> str:
    """The address; of IPv6 its network, as one caller has all addresses of a /64."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a proxy's word
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
