"""Everything about one user: handed over as JSON lines, and deleted. The sums stay true."""

import asyncio
import datetime as dt
import gc
import json
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert, select, update

from gateway.accounts import holdings, user_deletion, user_export
from gateway.accounts.audit import command_line
from gateway.accounts.principals import Role
from gateway.accounts.user_deletion import UserDeletion
from gateway.accounts.user_export import UserExport
from gateway.accounts.users import Users
from gateway.db.tables import (
    attempts,
    audit,
    metadata,
    predictions,
    team_invitations,
    teams,
    users,
    utc_now,
)
from gateway.errors import DatabaseUnavailable
from gateway.ids import new_id
from gateway.ledger.ledger import Ledger
from gateway.ledger.transaction import LedgerTransaction
from gateway.pipeline.retry import Retries
from tests.explain import explain
from tests.factories import prediction
from tests.fake_provider import FakeProvider, fail_with
from tests.fixtures.service import Run, Start
from tests.ledger_helpers import check_accounts
from tests.support import PATIENCE_SECONDS, Service, User, chat, error_of, unique

# Rows beyond this must not take more memory: see `test_memory_does_not_grow_with_the_rows`.
BYTES_PER_ROW = 200
# The tables of which a deletion keeps rows.
KEPT = {"users", "predictions", "attempts", "accounts", "audit"}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_deletion, "MIN_PAUSE_SECONDS", 0.0)


async def _lively(service: Service, canary: str) -> User:
    """A user with a row in as many tables as there are."""
    email = f"{canary}@example.com"
    made = await service.create_user(email=email)
    client = service.client(made)
    await client.post("/v1/chat/completions", json=chat(canary), headers={"Idempotency-Key": "k"})
    (row,) = [row for row in await service.rows(predictions) if row.user_id == made.id]
    feedback = {"rating": "up", "comment": canary}
    await client.put(f"/v1/predictions/{row.id}/feedback", json=feedback)
    team = {"id": new_id("team"), "name": "x", "plan": "many", "created_at": utc_now()}
    times = {"created_at": utc_now(), "expires_at": utc_now()}
    invited = {"id": new_id("inv"), "team_id": team["id"], "email": email, **times}
    await service.write(insert(teams).values(team), insert(team_invitations).values(invited))
    return made


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_an_export_has_all_that_the_tables_hold_and_no_secret(
    service: Service, run: Run, tmp_path: Path
) -> None:
    mine, other = unique("mine"), unique("other")
    user, _ = await _lively(service, mine), await _lively(service, other)
    file = tmp_path / "jane.jsonl"
    result = await run("users", "export", "--email", user.email, "--output", str(file))
    assert result.exit_code == 0, result.output
    assert "Exporting" in result.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text(encoding="utf-8")
    rows = _lines(text)
    assert rows[-1] == {"type": "end", "rows": len(rows) - 1}
    kinds = Counter(row["type"] for row in rows)
    assert KEPT | {"team_invitations"} <= set(kinds)
    assert other not in text
    (made,) = [row for row in rows if row["type"] == "predictions"]
    assert made["input"]["messages"][0]["content"] == mine
    assert made["feedback"] == {"rating": "up", "comment": mine}
    assert [row["email"] for row in rows if row["type"] == "users"] == [user.email]
    assert user.credential not in text
    # The secret of an API key; the end of a password may be any letter.
    end = user.credential.rpartition("_")[2]
    assert len(end) < 20 or end not in text
    assert not [name for row in rows for name in row if holdings.SECRET.search(name)]


async def test_a_table_of_yours_takes_part() -> None:
    """Each table with the user's id or address, and each that refers to one of these."""
    row = (await _fake_user())[0]
    named = {each.table.name for each in holdings.holdings_of(row)}
    theirs = {"users", "accounts", "audit"}
    for table in metadata.sorted_tables:
        above = {link.column.table.name for link in table.foreign_keys} - {"users"}
        if {"user_id", "email"} & set(table.c.keys()) or above & theirs:
            theirs.add(table.name)
    assert named == theirs


async def _fake_user() -> Any:
    class Fake:
        id, email = "usr_1", "a@b.c"

    return (Fake(),)


async def test_an_export_that_fails_leaves_no_file_of_its_name(
    service: Service, run: Run, user: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: UserExport) -> AsyncIterator[list[bytes]]:
        yield [b"{}\n"]
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(UserExport, "batches", fail)
    file = tmp_path / "jane.jsonl"
    words = "users", "export", "--email", user.email, "--output", str(file)
    assert (await run(*words)).exit_code == 1
    assert not file.exists()
    file.touch()
    again = await run(*words)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)


async def test_users_export_themselves(service: Service) -> None:
    mine, other = unique("mine"), unique("other")
    user, _ = await _lively(service, mine), await _lively(service, other)
    answer = await service.client(user).get("/v1/me/export")
    assert answer.headers["content-type"] == user_export.MEDIA_TYPE
    assert "attachment" in answer.headers["content-disposition"]
    assert (mine in answer.text, other in answer.text) == (True, False)
    assert _lines(answer.text)[-1]["type"] == "end"


async def test_administrators_export_users_and_the_audit_knows(service: Service) -> None:
    mine = unique("mine")
    user = await _lively(service, mine)
    path = f"/v1/admin/users/{user.id}/export"
    for role in (Role.USER, Role.AUDITOR):
        refused = await service.client(await service.create_user(role=role)).get(path)
        assert error_of(refused) == (403, "forbidden", None)
    admin = await service.create_user(role=Role.ADMIN)
    assert mine in (await service.client(admin).get(path)).text
    entry = (await service.changes())[-1]
    assert (entry.actor_id, entry.action) == (admin.id, "export")
    assert entry.target == f"user:{user.id}"


async def test_a_deletion_leaves_costs_and_nothing_else(service: Service, run: Run) -> None:
    mine, other = unique("mine"), unique("other")
    user, neighbour = await _lively(service, mine), await _lively(service, other)
    before = await check_accounts(service)
    cost = [row.cost_nano_usd for row in await service.rows(attempts)]
    result = await run("users", "delete", "--email", user.email, "--yes")
    assert (result.exit_code, "Deleting" in result.stderr) == (0, True), result.output
    assert await check_accounts(service) == before
    assert [row.cost_nano_usd for row in await service.rows(attempts)] == cost
    assert mine not in await _whole(service)
    assert other in await _whole(service)
    rows = {row.user_id: row for row in await service.rows(predictions)}
    assert (rows[user.id].idempotency_key, rows[user.id].request_id) == (None, "")
    assert (await service.client(user).get("/v1/me")).status_code in {401, 403}
    assert (await service.client(neighbour).get("/v1/me")).status_code == 200
    every = list(holdings.holdings_of(await _row(service, user)))
    left = {each.table.name for each in every if await each.size(service.database)}
    assert left == KEPT
    entries = [row.action for row in await service.rows(audit) if row.target == f"user:{user.id}"]
    assert entries == ["delete"]


async def test_nothing_is_deleted_without_a_yes(service: Service, run: Run, user: User) -> None:
    result = await run("users", "delete", "--email", user.email)
    assert result.exit_code == 1
    assert user.email in result.stderr
    assert (await service.client(user).get("/v1/me")).status_code == 200


async def test_an_interrupted_deletion_goes_on(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = unique("mine")
    user = await _lively(service, mine)
    await service.write(*(prediction(user, utc_now(), input=mine) for _ in range(3)))
    monkeypatch.setattr(user_deletion, "ROWS_AT_ONCE", 1)
    work = UserDeletion(service.database, await _row(service, user))
    await work.begin(command_line())
    assert (await service.client(user).get("/v1/me")).status_code == 401
    batches = work.batches()
    erased = 0
    async for _ in batches:
        erased = sum(row.erased_at is not None for row in await service.rows(predictions))
        if erased == 2:
            break
    await batches.aclose()
    assert erased == 2
    assert (await run("users", "delete", "--email", user.email, "--yes")).exit_code == 0
    assert mine not in await _whole(service)
    entries = [row.action for row in await service.rows(audit) if row.target == f"user:{user.id}"]
    assert entries == ["delete"]
    gone = await run("users", "delete", "--email", user.email, "--yes")
    assert "There is no such user" in gone.stderr


async def test_the_address_is_free_again(service: Service, run: Run, user: User) -> None:
    await run("users", "delete", "--email", user.email, "--yes")
    assert (await run("users", "create", "--email", user.email, "--plan", "few")).exit_code == 0
    listed = [row.email for row in await Users(service.database).list()]
    assert listed == [user.email]


async def test_what_runs_while_its_user_is_deleted_is_erased_too(
    service: Service, client: httpx2.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deletion waits for calls that run, whose records come after it has begun."""
    canary = unique("canary")
    await client.post("/v1/chat/completions", json=chat(canary))
    later = utc_now() + dt.timedelta(hours=1)
    await service.write(update(attempts).values(state="sent", lease_until=later))
    waits = 0

    async def is_running(_: UserDeletion) -> bool:
        nonlocal waits
        if not await asked(work):
            return False
        waits += 1
        await service.write(
            prediction(user, utc_now(), input=canary), update(attempts).values(state="settled")
        )
        return True

    asked = UserDeletion._is_running
    monkeypatch.setattr(UserDeletion, "_is_running", is_running)
    monkeypatch.setattr(user_deletion, "WAIT_SECONDS", 0.0)
    work = UserDeletion(service.database, await _row(service, user))
    await work.begin(command_line())
    assert [done async for done in work.batches()]
    assert waits == 1
    assert canary not in await _whole(service)


@pytest.mark.parametrize("sent", [0, 1])
async def test_a_call_that_was_admitted_before_the_deletion_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, start: Start, sent: int
) -> None:
    """The whole deletion happens before the reservation of the next attempt."""
    provider = FakeProvider.install(monkeypatch)
    provider.on_answer = fail_with(sent=True, status=500, billed=True)
    monkeypatch.setattr(Retries, "pause", lambda *_: 0.0)
    service = await start()
    user, canary = await service.create_user(), unique("canary")
    work = UserDeletion(service.database, await _row(service, user))
    reserve = Ledger.reserve

    async def delete_and_reserve(ledger: Ledger, *given: Any, **named: Any) -> None:
        if len(provider.asked) == sent:
            await work.begin(command_line())
            assert [done async for done in work.batches()]
        await reserve(ledger, *given, **named)

    monkeypatch.setattr(Ledger, "reserve", delete_and_reserve)
    client = service.client(user, **{"Idempotency-Key": "k"})
    answer = await client.post("/v1/chat/completions", json=chat(canary))
    assert canary not in await _whole(service)
    assert error_of(answer) == (401, "invalid_credentials", None)
    assert len(provider.asked) == sent
    assert [row.state for row in await service.rows(attempts)] == ["uncertain"] * sent
    assert len(await service.rows(predictions)) == sent
    assert bool(await check_accounts(service)) == bool(sent)
    every = list(holdings.holdings_of(await _row(service, user)))
    left = {each.table.name for each in every if await each.size(service.database)}
    assert left == (KEPT if sent else {"users", "audit"})


async def test_a_deletion_does_not_begin_within_a_transaction_of_the_ledger(
    service: Service, client: httpx2.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a call could be let in before the deletion, and recorded after it."""
    canary, loop = unique("canary"), asyncio.get_running_loop()
    work = UserDeletion(service.database, await _row(service, user))
    write = LedgerTransaction._write
    refused: list[type] = []

    def try_to_begin(ledger: LedgerTransaction, *given: Any) -> None:
        patch.undo()
        patch.setattr(user_deletion, "LOCK_TRIES", 1)
        patch.setattr(service.database, "patience_seconds", 0.1)
        begun = asyncio.run_coroutine_threadsafe(work.begin(command_line()), loop)
        refused.append(type(begun.exception(PATIENCE_SECONDS)))
        write(ledger, *given)

    with monkeypatch.context() as patch:
        patch.setattr(LedgerTransaction, "_write", try_to_begin)
        assert (await client.post("/v1/chat/completions", json=chat(canary))).is_success
    assert refused == [DatabaseUnavailable]
    await work.begin(command_line())
    assert [done async for done in work.batches()]
    assert canary not in await _whole(service)
    await check_accounts(service)


async def test_no_page_of_the_ledger_sorts_or_scans(service: Service, user: User) -> None:
    """Each page of a large table begins where an index says, however many there are."""
    row = await _row(service, user)
    large = [each for each in holdings.holdings_of(row) if each.table in (predictions, attempts)]
    assert len(large) == 2
    for holding in large:
        page = partial(explain, query=holding.keys(["0"], 50))
        plan = "\n".join(await service.database.transact(page))
        assert "user_id" in plan
        assert not [word for word in ("Sort", "Seq Scan", "TEMP B-TREE", "SCAN") if word in plan]


async def test_memory_does_not_grow_with_the_rows(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The most that an export and a deletion hold for 300 and for 1,200 rows."""
    for module in (holdings, user_deletion, user_export):
        monkeypatch.setattr(module, "ROWS_AT_ONCE", 50)
    row = await _row(service, user)
    most = []
    for count in (300, 900):
        await service.write(*(prediction(user, utc_now(), input="x" * 500) for _ in range(count)))
        tracemalloc.start()
        total = 0
        # Garbage in cycles is no memory that rows hold, and after many tests it is collected late.
        gc.freeze()
        async for batch in UserExport(service.database, row).batches():
            total += len(batch)
            gc.collect()
        async for _ in UserDeletion(service.database, row)._erase_predictions():
            gc.collect()
        gc.unfreeze()
        most.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert total > 1200
    assert most[1] - most[0] < 900 * BYTES_PER_ROW


async def _row(service: Service, user: User) -> Any:
    return await service.database.fetch_one(select(users).where(users.c.id == user.id))


async def _whole(service: Service) -> str:
    """All rows of all tables."""
    tables = metadata.sorted_tables
    return "\n".join([str(await service.database.fetch(select(each))) for each in tables])
