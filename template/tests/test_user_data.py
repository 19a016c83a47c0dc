"""Everything about one user: handed over as JSON lines, and deleted. The sums stay true."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.accounts import holdings, user_deletion, user_export
from gateway.accounts.principals import Role
from gateway.accounts.user_export import UserExport
from gateway.accounts.users import Users
from gateway.db.tables import attempts, audit, predictions
from gateway.errors import DatabaseUnavailable
from tests.fixtures.service import Run
from tests.ledger_helpers import check_accounts
from tests.support import Service, User, error_of, unique
from tests.user_data import KEPT, everything, lively_user, user_row


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_deletion, "MIN_PAUSE_SECONDS", 0.0)


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_an_export_has_all_that_the_tables_hold_and_no_secret(
    service: Service, run: Run, tmp_path: Path
) -> None:
    mine, other = unique("mine"), unique("other")
    user, _ = await lively_user(service, mine), await lively_user(service, other)
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
    user, _ = await lively_user(service, mine), await lively_user(service, other)
    answer = await service.client(user).get("/v1/me/export")
    assert answer.headers["content-type"] == user_export.MEDIA_TYPE
    assert "attachment" in answer.headers["content-disposition"]
    assert (mine in answer.text, other in answer.text) == (True, False)
    assert _lines(answer.text)[-1]["type"] == "end"


async def test_administrators_export_users_and_the_audit_knows(service: Service) -> None:
    mine = unique("mine")
    user = await lively_user(service, mine)
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
    user, neighbour = await lively_user(service, mine), await lively_user(service, other)
    before = await check_accounts(service)
    cost = [row.cost_nano_usd for row in await service.rows(attempts)]
    result = await run("users", "delete", "--email", user.email, "--yes")
    assert (result.exit_code, "Deleting" in result.stderr) == (0, True), result.output
    assert await check_accounts(service) == before
    assert [row.cost_nano_usd for row in await service.rows(attempts)] == cost
    assert mine not in await everything(service)
    assert other in await everything(service)
    rows = {row.user_id: row for row in await service.rows(predictions)}
    assert (rows[user.id].idempotency_key, rows[user.id].request_id) == (None, "")
    assert (await service.client(user).get("/v1/me")).status_code in {401, 403}
    assert (await service.client(neighbour).get("/v1/me")).status_code == 200
    every = list(holdings.holdings_of(await user_row(service, user)))
    left = {each.table.name for each in every if await each.size(service.database)}
    assert left == KEPT
    entries = [row.action for row in await service.rows(audit) if row.target == f"user:{user.id}"]
    assert entries == ["delete"]


async def test_nothing_is_deleted_without_a_yes(service: Service, run: Run, user: User) -> None:
    result = await run("users", "delete", "--email", user.email)
    assert result.exit_code == 1
    assert user.email in result.stderr
    assert (await service.client(user).get("/v1/me")).status_code == 200


async def test_the_address_is_free_again(service: Service, run: Run, user: User) -> None:
    await run("users", "delete", "--email", user.email, "--yes")
    assert (await run("users", "create", "--email", user.email, "--plan", "few")).exit_code == 0
    listed = [row.email for row in await Users(service.database).list()]
    assert listed == [user.email]
