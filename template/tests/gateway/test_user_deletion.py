"""The export and the deletion of a user meet running calls, a crash and large tables."""

import asyncio
import datetime as dt
import gc
import tracemalloc
from functools import partial
from typing import Any

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts import holdings, user_deletion, user_export
from gateway.accounts.audit import command_line
from gateway.accounts.user_deletion import UserDeletion
from gateway.accounts.user_export import UserExport
from gateway.db.tables import attempts, audit, metadata, predictions, utc_now
from gateway.errors import DatabaseUnavailable
from gateway.ledger.ledger import Ledger
from gateway.ledger.transaction import LedgerTransaction
from gateway.pipeline.retry import Retries
from tests.explain import explain
from tests.factories import prediction
from tests.fake_provider import FakeProvider, fail_with
from tests.fixtures.service import Run, Start
from tests.ledger_helpers import check_accounts
from tests.support import PATIENCE_SECONDS, Service, User, chat, error_of, unique
from tests.user_data import KEPT, everything, lively_user, user_row

# Rows beyond this must not take more memory: see `test_memory_does_not_grow_with_the_rows`.
BYTES_PER_ROW = 200


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_deletion, "MIN_PAUSE_SECONDS", 0.0)


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


async def test_an_interrupted_deletion_goes_on(
    service: Service, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = unique("mine")
    user = await lively_user(service, mine)
    await service.write(*(prediction(user, utc_now(), input=mine) for _ in range(3)))
    monkeypatch.setattr(user_deletion, "ROWS_AT_ONCE", 1)
    work = UserDeletion(service.database, await user_row(service, user))
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
    assert mine not in await everything(service)
    entries = [row.action for row in await service.rows(audit) if row.target == f"user:{user.id}"]
    assert entries == ["delete"]
    gone = await run("users", "delete", "--email", user.email, "--yes")
    assert "There is no such user" in gone.stderr


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
    work = UserDeletion(service.database, await user_row(service, user))
    await work.begin(command_line())
    assert [done async for done in work.batches()]
    assert waits == 1
    assert canary not in await everything(service)


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
    work = UserDeletion(service.database, await user_row(service, user))
    reserve = Ledger.reserve

    async def delete_and_reserve(ledger: Ledger, *given: Any, **named: Any) -> None:
        if len(provider.asked) == sent:
            await work.begin(command_line())
            assert [done async for done in work.batches()]
        await reserve(ledger, *given, **named)

    monkeypatch.setattr(Ledger, "reserve", delete_and_reserve)
    client = service.client(user, **{"Idempotency-Key": "k"})
    answer = await client.post("/v1/chat/completions", json=chat(canary))
    assert canary not in await everything(service)
    assert error_of(answer) == (401, "invalid_credentials", None)
    assert len(provider.asked) == sent
    assert [row.state for row in await service.rows(attempts)] == ["uncertain"] * sent
    assert len(await service.rows(predictions)) == sent
    assert bool(await check_accounts(service)) == bool(sent)
    every = list(holdings.holdings_of(await user_row(service, user)))
    left = {each.table.name for each in every if await each.size(service.database)}
    assert left == (KEPT if sent else {"users", "audit"})


async def test_a_deletion_does_not_begin_within_a_transaction_of_the_ledger(
    service: Service, client: httpx2.AsyncClient, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a call could be let in before the deletion, and recorded after it."""
    canary, loop = unique("canary"), asyncio.get_running_loop()
    work = UserDeletion(service.database, await user_row(service, user))
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
    assert canary not in await everything(service)
    await check_accounts(service)


async def test_no_page_of_the_ledger_sorts_or_scans(service: Service, user: User) -> None:
    """Each page of a large table begins where an index says, however many there are."""
    row = await user_row(service, user)
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
    row = await user_row(service, user)
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
