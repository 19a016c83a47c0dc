"""One process serves from the file in production, several in development."""

from typing import Any

import pytest

from app import wiring
from app.settings import Settings
from gateway.db import sqlite
from gateway.errors import StartError
from tests.support import SECRET_KEY


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "LOCK_PATIENCE_SECONDS", 0.1)


@pytest.fixture
def chosen(settings: dict[str, Any]) -> dict[str, Any]:
    return {**settings, "accept_ephemeral_database": True, "secret_key": SECRET_KEY}


@pytest.mark.parametrize("environment", ["development", "test"])
async def test_several_processes_share_the_file(chosen: dict[str, Any], environment: str) -> None:
    settings = Settings(_env_file=None, **{**chosen, "environment": environment})
    database = wiring.database.open_database(settings.gateway)
    async with (
        wiring.single_instance_lock(settings.gateway, database),
        wiring.single_instance_lock(settings.gateway, database),
    ):
        await database.check()
    await database.close()


async def test_in_production_the_file_belongs_to_one(chosen: dict[str, Any]) -> None:
    settings = Settings(_env_file=None, **{**chosen, "environment": "production"})
    database = wiring.database.open_database(settings.gateway)
    async with wiring.single_instance_lock(settings.gateway, database):
        with pytest.raises(StartError, match="Another process serves from"):
            async with wiring.single_instance_lock(settings.gateway, database):
                pytest.fail("two hold the file")
    await database.close()
