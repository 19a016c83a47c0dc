"""SQLite for several processes, outside of production: the file also holds the limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.config import GatewayConfig
from gateway.db import sqlite


@asynccontextmanager
async def single_instance_lock(
    config: GatewayConfig, database: sqlite.SqliteDatabase
) -> AsyncIterator[None]:
    """In production, hold the file for this process, as `gateway.db.sqlite` does."""
    if config.production:
        async with sqlite.single_instance_lock(config, database):
            yield
    else:
        yield
