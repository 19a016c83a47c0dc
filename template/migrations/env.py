"""How Alembic runs: on the connection that `app.db.migrate` hands over."""

from alembic import context
from sqlalchemy import text

from app.db.revisions import are_newer

connection = context.config.attributes["connection"]
schema = (connection.get_execution_options().get("schema_translate_map") or {}).get(None)
if schema:
    # Two replicas that start at once: the second waits here, and finds nothing left to do.
    connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('migrations'))"))
    connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    # Statements that alter a table do not name its schema.
    connection.execute(text(f'SET LOCAL search_path TO "{schema}"'))
context.configure(connection=connection, version_table_schema=schema)
with context.begin_transaction():
    if are_newer(context.get_context().get_current_heads()):
        context.config.print_stdout("A newer version has migrated this database: nothing to do.")
    else:
        context.run_migrations()
