"""Bring the tables up to date with `gateway/migrations/` and `app/migrations/`."""

from sqlalchemy import Connection

from gateway.db import lines
from gateway.db.engine import Database
from gateway.errors import DatabaseUnavailable, StartError

MAX_SECONDS = 600.0
# Waits for a table's lock in short tries: other sessions queue up behind a waiting migration.
TRIES, PAUSE_SECONDS = 30, 1.0


async def upgrade(database: Database) -> list[str]:
    """Apply all missing migrations in one transaction, and return their names.

    Raises `StartError` if another session locks a table for too long, or for a fault in the lines.
    """
    if fault := next(lines.faults(lines.PROJECT), None):
        raise StartError(f"Nothing was migrated: {fault}")
    async with database.as_owner() as owner:
        await owner.create()
        return await _transact(owner)


async def _transact(database: Database) -> list[str]:
    def work(connection: Connection) -> list[str]:
        applied = _upgrade(connection)
        database.protect(connection)
        return applied

    try:
        return await database.retry_on_contention(
            lambda: database.transact(work, MAX_SECONDS), TRIES, PAUSE_SECONDS
        )
    except DatabaseUnavailable as error:
        if not database.is_contended(error):
            raise
        raise StartError(
            "Nothing was migrated: another session, such as a backup or an open transaction, locks "
            "a table that has to change. Try again when it has ended."
        ) from error


def _upgrade(connection: Connection) -> list[str]:
    # Imported here: Alembic takes longer to load than most commands take to run.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config(toml_file=lines.PROJECT / "pyproject.toml")
    config.attributes["connection"] = connection
    config.attributes["applied"] = applied = list[str]()
    command.upgrade(config, "heads")
    return applied
