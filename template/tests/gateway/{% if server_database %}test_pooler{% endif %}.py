"""Through a pooler in transaction mode: each transaction may be on another connection."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import Connection, text

from app import wiring
from app.settings import Settings
from gateway.db.migrate import upgrade
from gateway.db.postgres import PostgresDatabase
from gateway.db.revisions import pending
from tests.backends import pgbouncer
from tests.fixtures.service import Run, Start
from tests.support import chat

CLIENTS = 20
# Who asks for more needs the pooler.
ASKED = os.environ.get("POOLER_REQUESTS")
REQUESTS = int(ASKED or "400")


def _pooler(url: str) -> Iterator[str]:
    if pgbouncer.executable() is None:
        give_up = pytest.fail if ASKED else pytest.skip
        give_up("PgBouncer is not installed; the package is called pgbouncer.")
    with pgbouncer.pooler(url) as pooled:
        yield pooled


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The service's database, through a pooler."""
    yield from _pooler(database_url)


@pytest.fixture
def empty_pooled_url(empty_database_url: str) -> Iterator[str]:
    """A database without a table, through a pooler."""
    yield from _pooler(empty_database_url)


async def test_many_clients_get_no_error(start: Start, pooled_url: str) -> None:
    """Each chat is answered and recorded; each client reads its own records and no other's."""
    service = await start(database_url=pooled_url)
    users = [await service.create_user() for _ in range(CLIENTS)]
    rounds = REQUESTS // (2 * CLIENTS)

    async def use(number: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        client = service.client(users[number])
        for _ in range(rounds):
            sent = await client.post("/v1/chat/completions", json=chat(f"from {number}"))
            kept = await client.get("/v1/predictions", params={"limit": 1})
            statuses.update([sent.status_code, kept.status_code])
            (record,) = kept.json()["data"]
            assert record["id"] == sent.headers["X-Prediction-ID"]
        return statuses

    found = sum(await asyncio.gather(*map(use, range(CLIENTS))), Counter[int]())
    assert found == {200: 2 * CLIENTS * rounds}
    assert (await service.client().get("/readyz")).status_code == 200


async def test_connections_are_shared(pooled_url: str) -> None:
    """So this pooler shows what a session would break: a prepared statement, for one."""
    connect = psycopg.AsyncConnection.connect
    async with (
        await connect(pooled_url, autocommit=True) as one,
        await connect(pooled_url) as other,
    ):
        await one.execute("SELECT 1", prepare=True)
        await other.execute("SELECT 1")  # Its transaction keeps the server's connection.
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            await one.execute("SELECT 1", prepare=True)


async def test_migrations(empty_pooled_url: str) -> None:
    settings = Settings(_env_file=None, database_url=empty_pooled_url)
    database = wiring.database.open_database(settings.gateway)
    assert await upgrade(database)
    assert not await pending(database)
    await database.close()


async def test_a_query_that_takes_too_long_is_cancelled(pooled_url: str) -> None:
    """Through the pooler, too: its connection is free again for others."""
    settings = Settings(_env_file=None, database_url=pooled_url)
    database = wiring.database.open_database(settings.gateway)
    assert isinstance(database, PostgresDatabase)

    def sleep(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(60)"))

    for _ in range(5):  # More often than the pooler has connections.
        with pytest.raises(Exception, match="does not answer"):
            await database.transact(sleep, 0.1)
    await database.check()
    await database.close()


async def test_doctor(run: Run, pooled_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", pooled_url)
    result = await run("doctor")
    assert "✓ database" in result.stdout
