"""A file for several processes, outside of production: the limits are in it too."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.settings import Settings
from gateway.db import sqlite


@asynccontextmanager
async def alone(settings: Settings, database: sqlite.SqliteDatabase) -> AsyncIterator[None]:
    """In production, hold the file for this process, as `gateway.db.sqlite` does."""
    if settings.production:
        async with sqlite.alone(settings, database):
            yield
    else:
        yield
