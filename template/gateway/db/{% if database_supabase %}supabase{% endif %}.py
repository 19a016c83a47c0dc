"""Supabase: PostgreSQL with row-level security, for a role that cannot bypass it.

A transaction says for whom it works: for one user, whose rows alone it then sees, or for the
service, which sees all. One that says nothing sees no row. What it says ends with it, as a pooler
then gives the connection to another transaction. docs/database-supabase.md explains the roles.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from psycopg.errors import InsufficientPrivilege
from sqlalchemy import URL, Connection, Executable, Row, text

from gateway.config import GatewayConfig
from gateway.db import row_security
from gateway.db.engine import Database, Query, Result, Work
from gateway.db.postgres import (
    EXAMPLE,
    Driver,
    PostgresDatabase,
    is_caused_by,
    single_instance_lock,
    url_of,
)
from gateway.db.tables import FOR_USER
from gateway.errors import DatabaseUnavailable, StartError

__all__ = ["EXAMPLE", "SupabaseDatabase", "open_database", "single_instance_lock"]

# The roles that could see all rows, among those that the connection's role is or can become.
BYPASSING = text(
    "SELECT rolname FROM pg_roles WHERE (rolsuper OR rolbypassrls) AND pg_has_role(oid, 'MEMBER')"
)
# The tables whose policies it could remove, or that have none.
OPEN = text(
    "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace('app') AND relkind = 'r' "
    "AND (pg_has_role(relowner, 'MEMBER') OR NOT relforcerowsecurity)"
)


class SupabaseDatabase(PostgresDatabase):
    """Its role sees rows only by the policies that `protect` makes."""

    # Each read is a transaction, in which it says for whom it works.
    reading: Mapping[str, Any] = {}

    def __init__(self, url: URL, owner_url: URL | None = None, role_url: URL | None = None) -> None:
        """`owner_url` is of the role that owns the tables, `role_url` of the service's own."""
        super().__init__(url)
        self._url, self._owner_url = url, owner_url
        self._role_url = role_url or url

    @asynccontextmanager
    async def as_owner(self) -> AsyncIterator[Database]:
        owner = SupabaseDatabase(self._owner_url or self._url, role_url=self._role_url)
        try:
            yield owner
        except DatabaseUnavailable as error:
            if not is_caused_by(error, InsufficientPrivilege):
                raise
            raise StartError(
                "Nothing was migrated: the role has no right to. Set DATABASE_OWNER_URL to the "
                "address of the role that owns the tables, at Supabase postgres."
            ) from error
        finally:
            await owner.close()

    def protect(self, connection: Connection) -> None:
        """Make the service's role if there is none, and protect the tables that this role owns."""
        role, password = _role(self._role_url), self._role_url.password
        if row_security.is_missing(connection, role):
            with self._pipeline(connection) as driver:
                secret = str(password) if password else None
                driver.execute(row_security.creation(driver, role, secret))
        statements = list(row_security.protect(connection, role))
        with self._pipeline(connection) as driver:
            for statement in statements:
                driver.execute(statement)

    async def exposure(self) -> str | None:
        role = _role(self._url)
        if await self.fetch(BYPASSING):
            what = f"the role {role} in DATABASE_URL can bypass row-level security"
        elif tables := await self.fetch(OPEN):
            names = ", ".join(row.relname for row in tables)[:100]
            what = f"the role {role} in DATABASE_URL owns tables, or they have no policy: {names}"
        else:
            return None
        return (
            f"{what}. Give DATABASE_URL a role of the service's own, DATABASE_OWNER_URL the owner "
            "of the tables, and run: python -m app migrate"
        )

    async def transact(
        self, work: Work[Result], seconds: float | None = None, user_id: str | None = None
    ) -> Result:
        def identified(connection: Connection) -> Result:
            with self._pipeline(connection) as driver:
                _identify(driver, user_id)
            return work(connection)

        return await super().transact(identified, seconds, user_id)

    def _rows(
        self, connection: Connection, statement: Executable, parameters: Mapping[str, Any] | None
    ) -> Sequence[Row[Any]]:
        with self._pipeline(connection) as driver:
            _identify(driver, statement.get_execution_options().get(FOR_USER))
        return super()._rows(connection, statement, parameters)

    def _execute(self, connection: Connection, queries: Sequence[Query]) -> list[Sequence[Any]]:
        if connection.in_transaction():
            return super()._execute(connection, queries)
        with self._pipeline(connection) as driver:  # A transaction in one round trip.
            _identify(driver)
            cursors = [self._send(driver, query) for query in queries]
            driver.execute("COMMIT")
        return self._results(queries, cursors)


def _identify(driver: Driver, user_id: str | None = None) -> None:
    """Say for whom a transaction works: a user, else the service. It ends with the transaction."""
    setting = (row_security.USER, user_id) if user_id else (row_security.SERVICE, "on")
    driver.execute("SELECT set_config(%s, %s, true)", setting)


def _role(url: URL) -> str:
    """The role of an address. At a pooler, its user is the role, a dot and the project."""
    return (url.username or "").partition(".")[0]


def open_database(config: GatewayConfig) -> SupabaseDatabase:
    """The database of `DATABASE_URL`, and `DATABASE_OWNER_URL` if it is set.

    Raises `StartError` for a wrong address.
    """
    owner = config.database_owner_url
    return SupabaseDatabase(
        url_of(config.database_url), url_of(owner, "DATABASE_OWNER_URL") if owner else None
    )
