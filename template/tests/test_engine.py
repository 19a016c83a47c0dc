"""Transactions are bounded by the time that the database takes, not by what this process does."""

import asyncio
import threading
import time

import pytest

from app import wiring
from app.errors import DatabaseUnavailable
from app.settings import Settings


async def test_time_that_others_take_in_this_process_is_not_held_against_it(
    database_url: str,
) -> None:
    database = wiring.database.open_database(Settings(_env_file=None, database_url=database_url))
    over = threading.Event()
    asked = asyncio.create_task(database.transact(lambda _: over.wait(10), 0.2))
    await asyncio.sleep(0)
    time.sleep(0.25)  # noqa: ASYNC251 - nothing else happens in this process meanwhile
    over.set()
    assert await asked
    await database.close()


async def test_what_takes_longer_is_given_up(database_url: str) -> None:
    database = wiring.database.open_database(Settings(_env_file=None, database_url=database_url))
    over = threading.Event()
    with pytest.raises(DatabaseUnavailable):
        await database.transact(lambda _: over.wait(10), 0.05)
    over.set()
    await database.close()
