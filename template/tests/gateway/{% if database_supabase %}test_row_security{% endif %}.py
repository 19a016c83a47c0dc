"""Row-level security, from SQL, as the role that the service has."""

import asyncio
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, func, select, text, true, update
from sqlalchemy.exc import DataError

from gateway.db import supabase
from gateway.db.engine import Query
from gateway.db.row_security import SERVICE, USER
from gateway.db.supabase import SupabaseDatabase
from gateway.db.tables import for_user, metadata, predictions
from tests.fixtures.service import Run
from tests.support import Service, chat, migrate

ALL = select(predictions.c.user_id)
AS_USER = "SELECT set_config('app.user_id', %s, true)"
COUNT = "SELECT count(*) FROM app.predictions"
FORCED = """
    SELECT relname, relrowsecurity AND relforcerowsecurity AND EXISTS (
        SELECT FROM pg_policy WHERE polrelid = pg_class.oid
    )
    FROM pg_class WHERE relnamespace = 'app'::regnamespace AND relkind = 'r'
"""
ADD_USER = """
    INSERT INTO app.users (id, email, role, plan, created_at)
    VALUES (%(name)s, %(name)s, 'user', 'free', now())
"""
ADD_PREDICTION = """
    INSERT INTO app.predictions (
        id, user_id, request_id, kind, model, status, input_tokens, output_tokens, microseconds,
        cost_nano_usd, day, created_at
    ) VALUES ('pred_' || %(name)s, %(name)s, 'r', 'chat', 'm', 'succeeded', 0, 0, 0, 0, 'd', now())
"""
HAS_OWNER = """
    SELECT table_name FROM information_schema.columns
    WHERE table_schema = 'app' AND column_name = 'user_id'
"""


@pytest.fixture
def filled(admin_url: str) -> str:
    """Two users with a prediction each; the address of the administrator."""
    with psycopg.connect(admin_url) as connection:
        for name in ("usr_a", "usr_b"):
            connection.execute(ADD_USER, {"name": name})
            connection.execute(ADD_PREDICTION, {"name": name})
    return admin_url


@pytest.fixture
def session(filled: str, database_url: str) -> Iterator[psycopg.Connection]:
    """A connection of the service's role, on which nothing was said yet."""
    with psycopg.connect(database_url) as connection:
        yield connection


def _count(session: psycopg.Connection) -> Any:
    row = session.execute(COUNT).fetchone()
    assert row is not None
    return row[0]


def test_who_says_nothing_sees_nothing(session: psycopg.Connection) -> None:
    for table in metadata.tables:
        query = sql.SQL("SELECT * FROM {}").format(sql.Identifier("app", table))
        rows = session.execute(query).fetchall()
        assert rows == [], table


def test_a_user_sees_no_row_of_another(session: psycopg.Connection) -> None:
    for name in ("usr_a", "usr_b"):
        with session.transaction():
            session.execute(AS_USER, [name])
            rows = session.execute("SELECT user_id FROM app.predictions").fetchall()
            assert rows == [(name,)]
            assert session.execute("SELECT id FROM app.users").fetchall() == [(name,)]


def test_a_user_changes_no_row_of_another(session: psycopg.Connection) -> None:
    session.execute(AS_USER, ["usr_a"])
    assert session.execute("UPDATE app.predictions SET day = 'x'").rowcount == 1
    assert session.execute("DELETE FROM app.predictions WHERE user_id = 'usr_b'").rowcount == 0
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("UPDATE app.predictions SET user_id = 'usr_b'")


def test_what_was_said_ends_with_an_error_in_the_middle(session: psycopg.Connection) -> None:
    session.execute(AS_USER, ["usr_a"])
    assert _count(session) == 1
    with pytest.raises(psycopg.errors.DivisionByZero):
        session.execute("SELECT 1 / 0")
    session.rollback()
    assert _count(session) == 0


def test_the_role_cannot_leave_the_policies(session: psycopg.Connection) -> None:
    for attempt in (
        "SET LOCAL ROLE postgres",
        "ALTER TABLE app.predictions DISABLE ROW LEVEL SECURITY",
        "ALTER TABLE app.predictions NO FORCE ROW LEVEL SECURITY",
        "CREATE POLICY all_rows ON app.predictions USING (true)",
        "CREATE TABLE app.copies (id int)",
        "TRUNCATE app.predictions CASCADE",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(attempt)
        session.rollback()
    session.execute("SET LOCAL row_security = off")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute(COUNT)


@pytest.mark.usefixtures("filled")
async def test_reads_for_a_user_and_for_the_service(opened: SupabaseDatabase) -> None:
    for name in ("usr_a", "usr_b") * 10:  # More often than there are connections.
        rows = await opened.fetch(for_user(ALL, name))
        assert [row.user_id for row in rows] == [name]
        rows = await opened.fetch(ALL)
        assert sorted(row.user_id for row in rows) == ["usr_a", "usr_b"]
        rows = await opened.find(Query(ALL))
        assert sorted(row.user_id for row in rows) == ["usr_a", "usr_b"]


@pytest.mark.usefixtures("filled")
async def test_a_transaction_for_a_user_changes_no_row_of_another(opened: SupabaseDatabase) -> None:
    changed = update(predictions).values(day="x").returning(predictions.c.user_id)

    def work(connection: Connection) -> list[str]:
        return list(connection.execute(changed).scalars())

    assert await opened.transact(work, user_id="usr_a") == ["usr_a"]
    assert sorted(await opened.transact(work)) == ["usr_a", "usr_b"]


@pytest.mark.usefixtures("filled")
async def test_a_connection_that_is_used_again_keeps_nothing(opened: SupabaseDatabase) -> None:
    """Also after an error in the middle of a transaction, and after one of the service."""
    said = select(func.current_setting(USER, true()), func.current_setting(SERVICE, true()))

    def fail(connection: Connection) -> None:
        connection.execute(text("SELECT 1 / 0"))

    for _ in range(10):
        with pytest.raises(DataError):
            await opened.transact(fail)
        await opened.fetch(for_user(ALL, "usr_a"))
        with opened._engine.connect() as connection:
            assert all(not value for value in connection.execute(said).one())
            assert connection.execute(ALL).all() == []


async def test_every_table_is_protected(admin_url: str) -> None:
    """Also those that a later migration adds: `migrate` protects what it finds."""
    with psycopg.connect(admin_url) as connection:
        found: dict[str, bool] = dict(connection.execute(FORCED).fetchall())
        owned = {name for (name,) in connection.execute(HAS_OWNER)}
    assert set(metadata.tables) <= found.keys()
    assert {name for name, is_forced in found.items() if not is_forced} == set()
    expected = {table.name for table in metadata.tables.values() if "user_id" in table.c}
    assert expected <= owned


async def test_a_new_table_is_protected_by_the_next_migrate(
    admin_url: str, database_url: str
) -> None:
    with psycopg.connect(admin_url) as connection:
        connection.execute("CREATE TABLE app.notes (user_id text)")
        connection.execute("INSERT INTO app.notes VALUES ('usr_a'), ('usr_b')")
    await asyncio.to_thread(migrate, database_url, database_owner_url=admin_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT * FROM app.notes").fetchall() == []
        connection.execute(AS_USER, ["usr_b"])
        assert connection.execute("SELECT * FROM app.notes").fetchall() == [("usr_b",)]


def _note(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """For whom each later transaction works: a user, else None."""
    seen: list[str | None] = []
    identify = supabase._identify

    def note(driver: Any, user_id: str | None = None) -> None:
        seen.append(user_id)
        identify(driver, user_id)

    monkeypatch.setattr(supabase, "_identify", note)
    return seen


async def test_routes_for_one_user_read_as_that_user(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = _note(monkeypatch)
    user = await service.create_user()
    client = service.client(user)
    answer = await client.post("/v1/chat/completions", json=chat())
    prediction = answer.headers["X-Prediction-ID"]
    for path in ("predictions", f"predictions/{prediction}", "usage", "me"):
        seen.clear()
        assert (await client.get(f"/v1/{path}")).status_code == 200
        assert user.id in seen, path


async def test_a_users_own_changes_are_made_as_that_user(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _note(monkeypatch)
    user = await service.create_user()
    client = service.client(user)
    sent = await client.post("/v1/chat/completions", json=chat())
    path = f"/v1/predictions/{sent.headers['X-Prediction-ID']}"
    said.clear()
    rated = await client.put(f"{path}/feedback", json={"rating": "up"})
    assert rated.status_code == 200
    assert said.count(user.id) == 2  # A read and the write.
    said.clear()
    assert (await client.delete(path)).status_code == 204
    assert said.count(user.id) == 3


async def test_doctor_reports_a_role_that_can_bypass_it(
    run: Run, admin_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = await run("doctor")
    assert "database role" not in result.stdout
    monkeypatch.setenv("DATABASE_URL", admin_url)
    result = await run("doctor")
    assert "! database role: the role postgres in DATABASE_URL can bypass" in result.stdout
