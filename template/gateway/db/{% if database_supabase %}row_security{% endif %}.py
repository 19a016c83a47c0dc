"""The role of the service, and the policies that decide which rows it sees.

A row is seen by transactions of the service, and by those of the row's user. What belongs to no
user is for the service alone. `FORCE` holds the tables' owner to the policies too.
"""

from collections.abc import Iterator

import psycopg
from psycopg import sql
from sqlalchemy import Connection, Row, text

from gateway.db.postgres import SCHEMA

# The settings of a transaction that say for whom it works.
SERVICE, USER = "app.service", "app.user_id"
POLICY = "own_rows"
PRIVILEGES = "SELECT, INSERT, UPDATE, DELETE"
# The tables of the connection's role, with the column of their rows' user, if they have one.
TABLES = text(
    """
    SELECT relname AS name, relrowsecurity AND relforcerowsecurity AND EXISTS (
        SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = :policy
    ) AS is_protected, CASE WHEN relname = 'users' THEN 'id' ELSE (
        SELECT attname FROM pg_attribute
        WHERE attrelid = pg_class.oid AND attname = 'user_id' AND NOT attisdropped
    ) END AS owner
    FROM pg_class
    WHERE relnamespace = to_regnamespace(:schema) AND relkind IN ('r', 'p')
      AND pg_has_role(relowner, 'USAGE')
    ORDER BY relname
    """
)
NO_ROLE = text("SELECT NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :role)")
# All of the privileges are granted together, so that one stands for them.
LACKING = text("SELECT NOT has_table_privilege(CAST(:role AS name), CAST(:name AS text), 'DELETE')")

Statements = Iterator[sql.Composed]


def protect(connection: Connection, role: str) -> Statements:
    """The statements that protect the tables of this connection's role, and grant `role` access.

    A table that has all of it is left alone: another statement would wait for its lock.
    """
    for table in connection.execute(TABLES, {"policy": POLICY, "schema": SCHEMA}).all():
        name = sql.Identifier(SCHEMA, table.name)
        if not table.is_protected:
            yield from _policy(name, table)
        asked = {"role": role, "name": f'{SCHEMA}."{table.name}"'}
        if connection.execute(LACKING, asked).scalar():
            yield sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(
                sql.Identifier(SCHEMA), sql.Identifier(role)
            )
            yield sql.SQL(f"GRANT {PRIVILEGES} ON {{}} TO {{}}").format(name, sql.Identifier(role))


def is_missing(connection: Connection, role: str) -> bool:
    """Whether there is no such role."""
    return bool(connection.execute(NO_ROLE, {"role": role}).scalar())


def creation(driver: psycopg.Connection, role: str, password: str | None) -> sql.Composed:
    """The statement that makes a role, which cannot bypass the policies.

    It has the password's verifier in place of the password: servers log statements.
    """
    created = sql.SQL("CREATE ROLE {} LOGIN NOBYPASSRLS").format(sql.Identifier(role))
    if not password:
        return created
    verifier = driver.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
    return created + sql.SQL(" PASSWORD {}").format(sql.Literal(verifier.decode()))


def _policy(name: sql.Identifier, table: Row[tuple[str, bool, str | None]]) -> Statements:
    # A setting that is selected is evaluated once for a statement, not for each row.
    seen = sql.SQL("(SELECT current_setting({}, true)) = 'on'").format(sql.Literal(SERVICE))
    if table.owner:
        own = sql.SQL(" OR {} = (SELECT current_setting({}, true))")
        seen += own.format(sql.Identifier(table.owner), sql.Literal(USER))
    policy = sql.Identifier(POLICY)
    yield sql.SQL("DROP POLICY IF EXISTS {} ON {}").format(policy, name)
    yield sql.SQL("CREATE POLICY {} ON {} USING ({})").format(policy, name, seen)
    yield sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(name)
    yield sql.SQL("ALTER TABLE {} FORCE ROW LEVEL SECURITY").format(name)
