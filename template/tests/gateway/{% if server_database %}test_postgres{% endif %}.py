"""PostgreSQL: its address, its schema and its outages."""

import asyncio
import resource
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, func, insert, literal, select, text

from gateway.db import postgres as database
from gateway.db.engine import Query
from gateway.db.postgres import PostgresDatabase, url_of
from gateway.db.tables import accounts, audit, metadata, policies, users
from gateway.doctor import NO_ANSWER
from gateway.errors import DatabaseUnavailable, StartError
from tests.addresses import BROKEN, CANARY
from tests.backends import postgres
from tests.fixtures.postgres import RESTORING
from tests.fixtures.service import Run, Start
from tests.support import (
    PATIENCE_SECONDS,
    PROMISED_SECONDS,
    Service,
    chat,
    error_of,
    eventually,
    free_time,
    migrate,
    outlasting,
)

AUDIT_OF_A_MEGABYTE = """
    INSERT INTO app.audit (id, at, action, target, after)
    SELECT md5(random()::text), now(), 'fill', 'it', string_agg(md5(random()::text), '')
    FROM generate_series(1, 32768)
"""
CHAT = "/v1/chat/completions"


def _name(url: str) -> str:
    """The database of an address."""
    return url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder for a server of one test.

    It is outside of pytest's folder. Started by root, PostgreSQL runs as another user, and a second
    pytest closes that folder to other users.
    """
    with TemporaryDirectory(prefix="postgres-") as directory:
        yield Path(directory) / "data"


@pytest.mark.parametrize(
    "url",
    [
        "postgres://jane:pw@db.example:6543/app",
        "postgresql://jane:pw@db.example:6543/app",
        "postgresql+psycopg://jane:pw@db.example:6543/app",
        "postgresql+asyncpg://jane:pw@db.example:6543/app",
    ],
)
def test_an_address_as_hosts_hand_it_out(url: str) -> None:
    address = url_of(url)
    assert address.drivername == "postgresql+psycopg"
    assert (address.username, address.password) == ("jane", "pw")
    assert (address.host, address.port, address.database) == ("db.example", 6543, "app")


def test_an_address_with_options_keeps_them() -> None:
    address = url_of("postgresql://jane@/app?host=/run/postgresql&sslmode=require")
    assert address.query == {"host": "/run/postgresql", "sslmode": "require"}


@pytest.mark.parametrize(
    "url",
    [
        *("", "db.example", "file:///app.db", "mysql://host/app", "//["),
        *(text.replace("scheme", "postgresql") for text in BROKEN),
        f"postgresql+nonsense://jane:{CANARY}@host/app",
        f"postgresql://jane:{CANARY}@host",
        f"postgresql://jane:{CANARY}@host/",
        f"postgresql://jane:{CANARY}@/app",
        f"postgresql://jane:{CANARY}@/app?host={CANARY} {CANARY}",
        f"postgresql://jane:{CANARY}@/app?host=one:{CANARY}",
        f"postgresql://jane:{CANARY}@host/app?port={CANARY}",
        f"postgresql://jane:{CANARY}@/app?host=one:1&host=two:{CANARY}",
        f"postgresql://jane:{CANARY}@/app?host=one:1&host=two&port=1",
    ],
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(StartError, match=r"^DATABASE_URL: ") as error:
        url_of(url)
    assert CANARY not in str(error.value)


def test_options_of_other_programs_are_named() -> None:
    with pytest.raises(StartError, match="unknown option: pgbouncer, schema;"):
        url_of("postgresql://jane:pw@host/app?sslmode=require&schema=public&pgbouncer=true")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://j@srv:p/a#s?s@host/app", {"user": "j@srv", "password": "p/a#s?s"}),
        # pragma: allowlist nextline secret
        ("postgresql://jane:p%40ss@[::1]:6543/a%20b", {"host": "::1", "dbname": "a b"}),
        ("postgresql:///app?host=one&host=two:6543", {"host": "one,two", "port": ",6543"}),
        ("postgresql:///?host=one,two&port=1,2&dbname=app", {"port": "1,2", "dbname": "app"}),
        ("postgresql://jane@/app?hostaddr=127.0.0.1", {"hostaddr": "127.0.0.1"}),
        ("postgresql://?service=ours", {"service": "ours"}),
    ],
)
def test_an_address_in_another_form(url: str, expected: dict[str, Any]) -> None:
    address = url_of(url)
    _, chosen = address.get_dialect()().create_connect_args(address)
    assert {name: chosen[name] for name in expected} == expected


async def test_the_tables_are_away_from_the_schema_that_all_see(opened: PostgresDatabase) -> None:
    rows = await opened.fetch(
        text(
            "SELECT schemaname, tablename FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
    )
    assert {row.schemaname for row in rows} == {database.SCHEMA}
    tables = {row.tablename for row in rows}
    assert {"users", "predictions", "attempts", "alembic_version"} <= tables


async def test_statements_are_not_prepared(opened: PostgresDatabase) -> None:
    """Behind a transaction pooler, the next connection has no prepared statements."""
    for _ in range(10):
        await opened.check()
    rows = await opened.fetch(text("SELECT * FROM pg_prepared_statements"))
    assert rows == []


async def test_a_few_rows_are_found_by_an_index(opened: PostgresDatabase) -> None:
    """The server takes a list of rows for a hundred, for which it would read all of this table."""
    sums, names = accounts.c, ["user:1", "user:2"]
    asked = opened.rows([sums.name])
    query = Query(select(sums.name).where(sums.name == asked["name"]), [{"name": n} for n in names])
    filling = insert(accounts).from_select(
        ["name", "period", "spent_nano_usd", "reserved_nano_usd"],
        select(
            func.concat("user:", func.generate_series(1, 3000)), *map(literal, ("2026-11", 0, 0))
        ),
    )
    scans = text("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = 'accounts'")

    def work(connection: Connection) -> tuple[list[str], int]:
        connection.execute(filling)
        connection.execute(text("ANALYZE app.accounts"))
        before = connection.execute(scans).scalar_one()
        (found,) = opened.read(connection, [query])
        return [row.name for row in found], connection.execute(scans).scalar_one() - before

    assert await opened.transact(work) == (names, 0)


async def test_recovers_from_an_outage_of_the_server(start: Start, data: Path) -> None:
    with postgres.server(data) as url:
        await asyncio.to_thread(migrate, url)
        service = await start(database_url=url)
        client = service.client(await service.create_user())
        assert (await client.post(CHAT, json=chat())).status_code == 200
    answers = await asyncio.gather(*[client.post(CHAT, json=chat()) for _ in range(5)])
    assert {error_of(answer) for answer in answers} == {(503, "database_unavailable", None)}
    assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200
    assert "Traceback" not in service.log
    with postgres.server(data) as same_url:
        assert same_url == url
        assert (await client.post(CHAT, json=chat())).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        kept = (await client.get("/v1/predictions")).json()["data"]
        assert [prediction["status"] for prediction in kept] == ["succeeded"] * 2
        await service.stop()


async def test_a_server_that_answers_others_is_waited_for(
    opened: PostgresDatabase, admin_url: str
) -> None:
    """Another session holds a lock, or the machine is busy: not an outage."""
    reading = select(users)
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute("LOCK TABLE app.users")
        releases: list[asyncio.Task[None]] = []

        def release() -> None:
            releases.append(asyncio.create_task(holder.rollback()))

        with outlasting(release):
            await opened.transact(lambda connection: connection.execute(reading).all())
        await asyncio.gather(*releases)
    assert len(releases) == 1


async def test_a_process_that_falls_silent_keeps_no_lock(
    service: Service, opened: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs, or whose machine is gone, does not block the others."""
    loop, locked, thawed = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def freeze(connection: Connection) -> None:
        lock = select(policies.c.id, opened.lock_timeout()).with_for_update(of=policies)
        connection.execute(lock)
        loop.call_soon_threadsafe(locked.set)
        thawed.wait(PATIENCE_SECONDS)
        connection.execute(lock)

    client = service.client(await service.create_user())
    monkeypatch.setattr(database, "SILENCE_TIMEOUT", "100ms")
    silent = asyncio.create_task(opened.transact(freeze, 30))
    await locked.wait()
    answer = await client.post(CHAT, json=chat())
    thawed.set()
    assert answer.status_code == 200
    with pytest.raises(DatabaseUnavailable):
        await silent


async def test_a_server_that_vanished_is_given_up(opened: PostgresDatabase) -> None:
    """Without these options, a query is resent for a quarter of an hour."""

    def parameters(connection: Connection) -> dict[str, str]:
        driver: Any = connection.connection.driver_connection
        given: dict[str, str] = driver.info.get_parameters()
        return given

    given = await opened.transact(parameters)
    assert int(given["tcp_user_timeout"]) <= 5_000
    idle, interval, count = (
        int(given[f"keepalives_{name}"]) for name in ("idle", "interval", "count")
    )
    assert idle + interval * count <= 10


async def test_settings_that_could_lose_a_commit_are_reported(
    opened: PostgresDatabase, postgres_server: str, database_url: str
) -> None:
    name = sql.Identifier(_name(database_url))
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        query = sql.SQL("ALTER DATABASE {} SET synchronous_commit = off")
        connection.execute(query.format(name))
    weakness = await opened.weakness()
    assert weakness is not None
    assert "synchronous_commit" in weakness


async def test_a_connection_that_breaks_past_sqlalchemy_is_replaced(
    opened: PostgresDatabase,
) -> None:
    def die(connection: Connection) -> None:
        suicide = text("SELECT pg_terminate_backend(pg_backend_pid())")
        opened.write_last(connection, [Query(suicide)])

    def ask(connection: Connection) -> Any:
        return opened.read(connection, [Query(select(literal(1).label("one")))])[0][0].one

    for _ in range(3):
        with pytest.raises(DatabaseUnavailable):
            await opened.transact(die)
        assert await opened.transact(ask) == 1


async def test_broken_connections_are_replaced(
    service: Service, postgres_server: str, database_url: str
) -> None:
    """A failover closes all connections. Only the first requests may fail."""
    client = service.client(await service.create_user())
    await asyncio.gather(*[client.post(CHAT, json=chat()) for _ in range(10)])
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [_name(database_url)],
        )
    statuses = [(await client.post(CHAT, json=chat())).status_code for _ in range(3)]
    assert set(statuses) <= {200, 503}
    assert statuses[-1] == 200


async def _write(opened: PostgresDatabase) -> None:
    write = text("UPDATE app.policies SET version = version")
    await opened.transact(lambda connection: connection.execute(write))


@contextmanager
def _demoted(connection: psycopg.Connection, database: str) -> Iterator[None]:
    """A read-only server: after a failover, the address leads to another server."""
    change = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    name = sql.Identifier(database)
    connection.execute(change.format(name, sql.Literal("on")))
    try:
        yield
    finally:
        connection.execute(change.format(name, sql.Literal("off")))


@pytest.mark.parametrize("ask", [PostgresDatabase.check, _write])
async def test_a_demoted_server_is_left(
    opened: PostgresDatabase,
    database_url: str,
    postgres_server: str,
    ask: Callable[[PostgresDatabase], Awaitable[None]],
) -> None:
    with (
        psycopg.connect(postgres_server, autocommit=True) as connection,
        _demoted(connection, _name(database_url)),
        pytest.raises(DatabaseUnavailable),
    ):
        await ask(opened)

    async def is_answered() -> bool:
        with suppress(DatabaseUnavailable):
            await ask(opened)
            return True
        return False

    assert await eventually(is_answered)


async def test_a_connection_that_a_failover_meets_in_use_is_closed(
    opened: PostgresDatabase, database_url: str, postgres_server: str
) -> None:
    begun, is_over = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    name = _name(database_url)

    def use(_: Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        is_over.wait(PATIENCE_SECONDS)

    using = asyncio.create_task(opened.transact(use, seconds=PATIENCE_SECONDS))
    await begun.wait()
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        with _demoted(connection, name), pytest.raises(DatabaseUnavailable):
            await _write(opened)
        await opened.check()
        is_over.set()
        await using
        await opened.close()

        async def is_closed() -> bool:
            others = """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = %s AND application_name != %s
            """
            return connection.execute(others, [name, RESTORING]).fetchone() == (0,)

        assert await eventually(is_closed)


async def test_a_check_leaves_nothing(opened: PostgresDatabase) -> None:
    await opened.check()
    assert await opened.fetch(select(audit)) == []


async def test_a_server_that_cannot_grow_is_not_ready(start: Start, data: Path) -> None:
    """As with a full disk, the server commits only what needs no new page."""
    with _no_larger_files(), postgres.server(data) as url:
        await asyncio.to_thread(migrate, url)
        service = await start(database_url=url)
        client = service.client()
        assert (await client.get("/readyz")).status_code == 200
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER TABLE app.audit SET (toast.autovacuum_enabled = off)")
            connection.execute("ALTER TABLE app.audit DISABLE TRIGGER USER")  # It only grows.
            _fill(connection)
            assert (await client.get("/readyz")).status_code == 503
            assert (await client.get("/livez")).status_code == 200
            assert "Not ready: database_unavailable: " in service.log
            connection.execute("TRUNCATE app.audit")
        assert (await client.get("/readyz")).status_code == 200
        await service.stop()


def _fill(connection: psycopg.Connection) -> None:
    with suppress(psycopg.errors.InternalError_):
        while True:
            connection.execute(AUDIT_OF_A_MEGABYTE)


@contextmanager
def _no_larger_files() -> Iterator[None]:
    """Programs started in the context cannot write files larger than one of PostgreSQL's log."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16 * 1024 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "lock",
    [
        *(f"LOCK TABLE app.{table}" for table in metadata.tables),
        "SELECT * FROM app.policies FOR UPDATE",
    ],
)
async def test_locked_tables_are_not_ready_within_a_second(
    service: Service, admin_url: str, lock: str
) -> None:
    client = service.client()
    assert (await client.get("/readyz")).status_code == 200
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute(lock)
        async with free_time() as passed:
            assert (await client.get("/readyz")).status_code == 503
        assert passed() < PROMISED_SECONDS
    assert await eventually(lambda: _is_ready(client))


async def test_doctor_reports_a_lock_and_a_read_only_server(
    run: Run, database_url: str, admin_url: str, postgres_server: str
) -> None:
    async with await psycopg.AsyncConnection.connect(admin_url) as holder:
        await holder.execute("LOCK TABLE app.users, app.attempts, app.applied_migrations")
        result = await run("doctor")
    assert result.exit_code == 1
    assert "✗ database: " in result.stdout
    assert f"✗ migrations: {NO_ANSWER}" in result.stdout
    with (
        psycopg.connect(postgres_server, autocommit=True) as connection,
        _demoted(connection, _name(database_url)),
    ):
        result = await run("doctor")
    assert result.exit_code == 1
    assert "✗ database: is DATABASE_URL right" in result.stdout
    assert "read-only transaction" in result.stdout


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    return bool((await client.get("/readyz")).status_code == 200)
