"""A PostgreSQL in place of Supabase's, which the service uses as a role of its own."""

from collections.abc import Mapping

from drill.postgres import PostgresServer
from tests.backends.supabase import addresses


class SupabaseServer(PostgresServer):
    """A PostgreSQL with two roles: the owner of the tables, and the service's."""

    def _addresses(self, url: str) -> Mapping[str, str]:
        return addresses(url)
