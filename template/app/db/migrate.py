"""Bring the tables up to date with `migrations/`."""

from sqlalchemy import Connection

from app.db.engine import Database
from app.settings import ROOT

LONGEST_SECONDS = 600.0


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing, in one transaction."""
    await database.transact(_upgrade, LONGEST_SECONDS)


def _upgrade(connection: Connection) -> None:
    # Alembic takes longer to load than most commands take to run.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")
