"""Bring the tables up to date with `migrations/`."""

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from app.db.engine import Database
from app.settings import ROOT

LONGEST_SECONDS = 600.0


async def upgrade(database: Database) -> None:
    """Apply every migration that is missing, in one transaction."""
    await database.transact(_upgrade, LONGEST_SECONDS)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(ROOT / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "heads")
