"""The addresses of a PostgreSQL that stands in for Supabase's: its owner's and the service's."""

from collections.abc import Mapping
from urllib.parse import urlsplit

ROLE = "service"
# The same for each start: the role outlives the process that made it.
PASSWORD = "development"


def addresses(owner_url: str) -> Mapping[str, str]:
    """The variables of a service, whose role `migrate` makes."""
    return {"DATABASE_OWNER_URL": owner_url, "DATABASE_URL": service_address(owner_url)}


def service_address(owner_url: str, role: str = ROLE) -> str:
    """The owner's address, with the service's role in place of the owner's."""
    parts = urlsplit(owner_url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{PASSWORD}@{place}").geturl()
