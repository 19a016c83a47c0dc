"""`python -m app reconcile`: reports where a bill differs from the ledger."""

import datetime as dt
import json
from typing import Any

import pytest
from sqlalchemy import select, update

from gateway.db.tables import alerts, attempts, utc_now
from gateway.ledger.reconciliation import Reconciliation
from gateway.prices import NANO
from tests.fixtures.service import Run
from tests.simulator.faults import Fault
from tests.simulator.server import Simulator
from tests.support import Service, User, chat, unique
from tests.upstream import answering


@pytest.fixture
def admin_key() -> str:
    return unique("admin")


@pytest.fixture
def run(run: Run, admin_key: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Commands that have the key."""
    monkeypatch.setenv("OPENAI_ADMIN_KEY", admin_key)
    return run


@pytest.fixture
def today() -> str:
    return utc_now().date().isoformat()


async def _spend(service: Service, user: User) -> None:
    """Two models, so that the costs come in two pages."""
    client = service.client(user)
    for model in ("openai/chat", "openai/vision"):
        answer = await client.post("/v1/chat/completions", json=chat(model=model))
        assert answer.status_code == 200


async def test_the_ledger_says_what_was_billed(
    service: Service, user: User, run: Run, today: str, admin_key: str
) -> None:
    await _spend(service, user)
    await service.client(user).post(
        "/v1/chat/completions", json=chat()
    )  # The bill does not contain this.
    result = await run("reconcile", "--day", today, "--json")
    assert result.exit_code == 0
    openai = [row for row in await service.rows(attempts) if row.provider == "openai"]
    spent = sum(row.cost_nano_usd for row in openai)
    assert json.loads(result.stdout) == {
        "provider": "openai",
        "day": today,
        "ledger_nano_usd": spent,
        "billed_nano_usd": spent,
        "difference_nano_usd": 0,
    }
    assert spent > 0
    calls = [call for call in service.simulator.calls if call.path == "/organization/costs"]
    assert len(calls) == 2
    assert {call.headers["authorization"] for call in calls} == {f"Bearer {admin_key}"}


async def test_a_person_reads_both_sums(service: Service, user: User, run: Run, today: str) -> None:
    await _spend(service, user)
    text = (await run("reconcile", "--day", today)).stdout
    assert text.startswith(f"{today}: 0.0000")
    assert text.endswith("a difference of 0.000000000 USD\n")


async def test_a_difference_is_an_alert_and_a_failure(
    service: Service, user: User, run: Run, today: str
) -> None:
    await _spend(service, user)
    dear = update(attempts).values(cost_nano_usd=NANO)
    await service.write(dear)
    for _ in range(2):  # The alert is raised once.
        result = await run("reconcile", "--day", today, "--json")
        assert result.exit_code == 1
        assert "OpenAI billed another sum" in result.stderr
    (alert,) = await service.database.fetch(select(alerts))
    assert (alert.id, alert.kind) == (f"reconcile:openai:{today}", "reconcile")
    assert alert.details == json.loads(result.stdout)
    assert alert.details["difference_nano_usd"] < -NANO


@pytest.mark.parametrize(
    ("ledger", "billed", "agrees"),
    [
        (0, 0, True),
        (0, NANO // 100, True),  # A cent of a day that cost nothing.
        (0, NANO // 100 + 1, False),
        (99 * NANO, 100 * NANO, True),  # One part in a hundred.
        (99 * NANO - 1, 100 * NANO, False),
        (101 * NANO + 1, 100 * NANO, False),
    ],
)
def test_how_much_may_differ(ledger: int, billed: int, agrees: bool) -> None:
    found = Reconciliation(
        day=dt.date(2026, 2, 1),
        ledger_nano_usd=ledger,
        billed_nano_usd=billed,
        difference_nano_usd=billed - ledger,
    )
    assert found.agrees is agrees


async def test_yesterday_is_compared_by_default(run: Run, service: Service, user: User) -> None:
    await _spend(service, user)
    found = json.loads((await run("reconcile", "--json")).stdout)
    assert found["day"] == (utc_now().date() - dt.timedelta(days=1)).isoformat()
    assert (found["ledger_nano_usd"], found["billed_nano_usd"]) == (0, 0)


async def test_it_needs_an_admin_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY")
    result = await run("reconcile")
    assert result.exit_code == 1
    assert "OPENAI_ADMIN_KEY is not set" in result.stderr


async def test_a_refusal_is_reported_without_the_key(
    run: Run, simulator: Simulator, admin_key: str
) -> None:
    simulator.inject(Fault(kind="error", status=401))
    result = await run("reconcile")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "answers 401: is OPENAI_ADMIN_KEY an admin key" in result.stderr
    assert admin_key not in result.output


@pytest.mark.parametrize("answer", [b"<html>", {"data": [{"results": [{"amount": 1}]}]}])
async def test_an_invalid_answer_is_reported(
    run: Run, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    async with answering(lambda _: answer) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        result = await run("reconcile")
    assert result.exit_code == 1
    assert "in a form that is not known here" in result.stderr


async def test_an_unreachable_api_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9")
    result = await run("reconcile")
    assert result.exit_code == 1
    assert "does not answer" in result.stderr
