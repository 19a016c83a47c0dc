"""A PostgreSQL server that does not answer: all waits for it have time-outs."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import select, text
from sqlalchemy.engine import make_url

from gateway.db import postgres as database
from gateway.db.engine import Query
from gateway.db.migrate import upgrade
from gateway.db.postgres import PostgresDatabase, url_of
from gateway.db.tables import users
from gateway.errors import DatabaseUnavailable, StartError
from tests.support import Service, chat, eventually

PATIENCE_SECONDS = 10.0
ONE = text("SELECT 1")
# Of what SQLAlchemy asks on a first connection: the first and the last.
FIRST_WORDS = [b"pg_catalog.version()", b"hstore"]
WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set when a wait for another session's lock has timed out."""
    event = asyncio.Event()
    is_contended = PostgresDatabase.is_contended

    def note(opened: PostgresDatabase, error: DatabaseUnavailable) -> bool:
        event.set()
        return is_contended(opened, error)

    monkeypatch.setattr(PostgresDatabase, "is_contended", note)
    return event


class Proxy:
    """A proxy in front of a server, like a load balancer."""

    def __init__(self, url: str) -> None:
        server = conninfo_to_dict(url)
        self._host, self._port = str(server["host"]), server.get("port", 5432)
        self._last_words: bytes | None = None
        self.fell_silent = asyncio.Event()
        self._silent: set[asyncio.StreamWriter] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._running: set[asyncio.Future[Any]] = set()

    def silence(self) -> None:
        """Accept data on the existing connections, and forward nothing."""
        self._silent |= self._open

    def silence_at(self, words: bytes | None) -> None:
        """From now on, forward nothing of connections that send `words`."""
        self._last_words = words

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await self._connect()
        self._open |= {writer, ours}
        both = asyncio.gather(self._pass_on(reader, ours), self._pass_on(theirs, writer))
        self._running.add(both)
        await both

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._host.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._host}/.s.PGSQL.{self._port}")
        return await asyncio.open_connection(self._host, self._port)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self._last_words is not None and self._last_words in data:
                self._silent.add(writer)
                self.fell_silent.set()
            if writer not in self._silent:
                writer.write(data)
        writer.close()

    async def close(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*self._running)


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, PostgresDatabase]]:
    proxy = Proxy(url)
    async with await asyncio.start_server(proxy.accept, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = make_url(url).difference_update_query(["host", "port"])
        address = address.set(host="127.0.0.1", port=port)
        opened = PostgresDatabase(url_of(address.render_as_string(hide_password=False)))
        try:
            yield proxy, opened
        finally:
            await proxy.close()
            await opened.close()


def write(opened: PostgresDatabase, seconds: float) -> Awaitable[Any]:
    return opened.transact(lambda connection: connection.execute(ONE), seconds)


def write_together(opened: PostgresDatabase, seconds: float) -> Awaitable[Any]:
    return opened.transact(lambda c: opened.write_last(c, [Query(ONE)]), seconds)


def read(opened: PostgresDatabase, seconds: float) -> Awaitable[Any]:
    return opened.fetch(ONE, seconds=seconds)


@pytest.mark.parametrize("ask", [write, write_together, read])
async def test_connections_that_fell_silent_are_replaced(
    ask: Callable[[PostgresDatabase, float], Awaitable[Any]], database_url: str
) -> None:
    """A proxy still accepts the data, so that the kernel detects no fault."""
    async with proxied(database_url) as (proxy, opened):

        async def is_answered() -> bool:
            with suppress(DatabaseUnavailable):
                await ask(opened, 0.5)
                return True
            return False

        for _ in range(database.WRITERS + 1):
            assert await eventually(is_answered)
            proxy.silence()
            await is_answered()
        await asyncio.wait_for(opened.close(), PATIENCE_SECONDS)


@pytest.mark.parametrize("words", FIRST_WORDS)
@pytest.mark.parametrize("ask", [write, read])
async def test_a_server_that_falls_silent_as_it_is_first_connected_to_is_left(
    ask: Callable[[PostgresDatabase, float], Awaitable[Any]], words: bytes, database_url: str
) -> None:
    """All new connections wait for SQLAlchemy's first queries."""
    async with proxied(database_url) as (proxy, opened):
        proxy.silence_at(words)
        work = [asyncio.ensure_future(ask(opened, PATIENCE_SECONDS)) for _ in range(3)]
        await asyncio.wait_for(proxy.fell_silent.wait(), PATIENCE_SECONDS)
        for each in work:
            each.cancel()
        await asyncio.wait(work)
        proxy.silence_at(None)
        await ask(opened, PATIENCE_SECONDS)
        await asyncio.wait_for(opened.close(), PATIENCE_SECONDS)


async def test_an_abandoned_query_leaves_the_servers_queue(
    opened: PostgresDatabase, admin_url: str
) -> None:
    """Abandoned queries would use up the server's connections."""
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute("LOCK TABLE app.users")
        lock = text("LOCK TABLE app.users")
        work = opened.transact(lambda connection: connection.execute(lock), 0.2)
        reading = opened.fetch(select(users), seconds=0.2)
        answers = await asyncio.gather(work, reading, return_exceptions=True)
        assert [type(answer) for answer in answers] == [DatabaseUnavailable] * 2

        async def is_left_alone() -> bool:
            return await (await holder.execute(WAITING)).fetchone() is None

        assert await eventually(is_left_alone)


@pytest.mark.parametrize(("released", "status"), [(True, 200), (False, 503)])
async def test_a_lock_that_others_keep_is_waited_for(
    service: Service, admin_url: str, refused: asyncio.Event, released: bool, status: int
) -> None:
    """For longer than one time-out, as several processes contend, but not forever."""
    client = service.client(await service.create_user())
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute("SELECT id FROM app.policies FOR UPDATE")
        asked = asyncio.create_task(client.post("/v1/chat/completions", json=chat()))
        await asyncio.wait_for(refused.wait(), 10)
        if released:
            await holder.rollback()
        assert (await asked).status_code == status


@pytest.mark.parametrize("released", [True, False])
async def test_a_migration_waits_for_others_in_short_tries(
    opened: PostgresDatabase,
    admin_url: str,
    refused: asyncio.Event,
    monkeypatch: pytest.MonkeyPatch,
    released: bool,
) -> None:
    """All other transactions would wait behind it."""
    monkeypatch.setattr("gateway.db.migrate.TRIES", 10 if released else 2)
    monkeypatch.setattr("gateway.db.migrate.PAUSE_SECONDS", 0)
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute("LOCK TABLE app.alembic_version")
        migrating = asyncio.create_task(upgrade(opened))
        await asyncio.wait_for(refused.wait(), 10)
        if released:
            await holder.rollback()
            await migrating
        else:
            with pytest.raises(StartError, match="Nothing was migrated"):
                await migrating
