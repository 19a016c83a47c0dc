"""How Alembic runs: on the connection that `gateway.db.migrate` hands over."""

from alembic import context
from sqlalchemy import inspect, text

from gateway.db import revisions

connection = context.config.attributes["connection"]
schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
if schema:
    # Two replicas that start at once: the second waits here, and finds nothing left to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('migrations'))"))
    # Shorter than a call of the service waits, as those that come later wait behind this one.
    connection.execute(text("SET LOCAL lock_timeout TO '400ms'"))
    # To create it, if only where it is missing, takes a right that not every role has.
    if not inspect(connection).has_schema(schema):
        connection.execute(text(f'CREATE SCHEMA "{schema}"'))
    # Statements that alter a table do not name its schema.
    connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
context.configure(
    connection=connection, version_table_schema=schema, on_version_apply=revisions.note
)
with context.begin_transaction():
    revisions.adopt(connection, schema)
    context.run_migrations()
