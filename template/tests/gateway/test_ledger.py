"""The ledger: writes that wait share a transaction, and what was closed stays closed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import wiring
from app.settings import Settings
from gateway import pricing
from gateway.accounts.principals import Principal, Role, Scope
from gateway.circuit_breaker.window import Permit
from gateway.db.engine import Database
from gateway.db.tables import attempts, predictions
from gateway.errors import DatabaseUnavailable, GenerationStopped, ProviderError
from gateway.ids import new_id
from gateway.ledger.entries import Settle
from gateway.ledger.ledger import Ledger
from gateway.ledger.transaction import LedgerTransaction
from gateway.pipeline.generation import (
    Attempt,
    AttemptResult,
    Candidate,
    Generation,
    GenerationRequest,
)
from gateway.policy import Policy
from gateway.providers.base import Deadline, Outcome, ProviderRequest, Usage
from gateway.rate_limits.base import AcquireRequest, Admission
from gateway.rate_limits.limits import Lease
from tests.fake_provider import FakeProvider
from tests.support import Service, User, chat, stalling

MANY = 50
FINE = AttemptResult("succeeded", Outcome.OK, Usage(2, 5), {"choices": []})
LATE = AttemptResult(
    "cancelled", Outcome.CANCELLED, output={"late": True}, error=ProviderError("Late.")
)


@pytest.fixture
def ledger(service: Service) -> Ledger:
    return ledger_of(service)


def ledger_of(service: Service, database: Database | None = None) -> Ledger:
    policy: Policy = service.engine.policy
    return Ledger(database or service.database, policy, keep_content=True)


def generation_of(service: Service, user_id: str) -> Generation:
    policy: Policy = service.engine.policy
    model = policy.model("offline/echo")
    principal = Principal(user_id, Role.USER, "many", frozenset(Scope))
    body = {"messages": chat()["messages"]}
    call = GenerationRequest(principal, "chat", model.id, body, "req_1", 60)
    lease = Lease(AcquireRequest(()), Admission(True, ()), tokens=0)
    caps = policy.caps(user_id, "many")
    generation = Generation(call, caps, lease, Deadline(60), new_id("pred"))
    candidate = Candidate(model, FakeProvider(), pricing.max_usage(model, body), body)
    request = ProviderRequest(model, body, generation.deadline)
    request.sent = True
    generation.attempt = Attempt(candidate, request, Permit(model, 0.0))
    return generation


async def begin(ledger: Ledger, *generations: Generation) -> list[BaseException | None]:
    opened = (ledger.reserve(generation, generation.current) for generation in generations)
    return await asyncio.gather(*opened, return_exceptions=True)


async def end(ledger: Ledger, ending: AttemptResult, *generations: Generation) -> None:
    for generation in generations:
        generation.count(ending)
    closed = (ledger.settle(generation, generation.current, ending) for generation in generations)
    await asyncio.gather(*closed)


async def test_opening_many_at_once_takes_few_transactions(
    service: Service, user: User, ledger: Ledger, commits: list[object]
) -> None:
    generations = [generation_of(service, user.id) for _ in range(MANY)]
    commits.clear()
    assert await begin(ledger, *generations) == [None] * MANY
    assert len(commits) == 1
    assert len(await service.rows(attempts)) == len(await service.rows(predictions)) == MANY
    await end(ledger, FINE, *generations)
    assert len(commits) == 2
    assert {row.state for row in await service.rows(attempts)} == {"settled"}


async def test_what_opens_and_what_closes_share_a_transaction(
    service: Service, user: User, ledger: Ledger, commits: list[object]
) -> None:
    first, second = generation_of(service, user.id), generation_of(service, user.id)
    await begin(ledger, first)
    commits.clear()
    await asyncio.gather(end(ledger, FINE, first), begin(ledger, second))
    assert len(commits) == 1
    states = {row.id: row.state for row in await service.rows(attempts)}
    assert states == {first.current.id: "settled", second.current.id: "reserved"}


async def test_an_exceeded_maximum_stops_reservations_in_the_same_transaction(
    service: Service, user: User, ledger: Ledger
) -> None:
    first, second = generation_of(service, user.id), generation_of(service, user.id)
    await begin(ledger, first)
    dear = AttemptResult("succeeded", Outcome.OK, Usage(output_tokens=10**6))
    _, (error,) = await asyncio.gather(end(ledger, dear, first), begin(ledger, second))
    assert isinstance(error, GenerationStopped)
    assert (await service.attempt()).id == first.current.id


async def test_requests_at_the_same_time_share_transactions(
    service: Service, user: User, commits: list[object]
) -> None:
    client = service.client(user)
    asked = [client.post("/v1/chat/completions", json=chat()) for _ in range(MANY)]
    commits.clear()
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    # Each opens and closes: alone they would be a hundred.
    assert len(commits) < MANY


async def test_one_that_cannot_be_written_does_not_hurt_the_others(
    service: Service, user: User, ledger: Ledger
) -> None:
    names = [user.id, "usr_unknown", user.id]
    generations = [generation_of(service, name) for name in names]
    first, poisoned, last = await begin(ledger, *generations)
    assert (first, last) == (None, None)
    assert isinstance(poisoned, Exception)
    ids = {row.id for row in await service.rows(attempts)}
    assert ids == {generations[0].current.id, generations[2].current.id}
    assert len(await service.rows(predictions)) == 2


async def test_settling_is_idempotent(service: Service, user: User, ledger: Ledger) -> None:
    generation = generation_of(service, user.id)
    await begin(ledger, generation)
    await end(ledger, FINE, generation)
    before = await service.attempt(), await service.prediction()
    await end(ledger, LATE, generation)
    assert (await service.attempt(), await service.prediction()) == before


async def test_closing_what_was_never_opened_writes_nothing(
    service: Service, user: User, ledger: Ledger
) -> None:
    await end(ledger, FINE, generation_of(service, user.id))
    assert await service.rows_count() == 0


async def test_an_erased_prediction_keeps_its_cost_and_no_late_output(
    service: Service, user: User, ledger: Ledger
) -> None:
    erased, kept = generation_of(service, user.id), generation_of(service, user.id)
    await begin(ledger, erased, kept)
    await service.client(user).delete(f"/v1/predictions/{erased.id}")
    await end(ledger, FINE, erased, kept)
    rows = {row.id: row for row in await service.rows(predictions)}
    assert rows[erased.id].output is None
    assert rows[kept.id].output == {"choices": []}
    assert rows[erased.id].cost_nano_usd == rows[kept.id].cost_nano_usd > 0
    assert {row.state for row in await service.rows(attempts)} == {"settled"}


async def test_one_attempt_keeps_its_remote_id_and_its_lease(
    service: Service, user: User, ledger: Ledger
) -> None:
    generation = generation_of(service, user.id)
    await begin(ledger, generation)
    generation.current.request.remote_id = "remote-1"
    await end(ledger, FINE, generation)
    attempt = await service.attempt()
    assert attempt.remote_id == "remote-1"
    assert (attempt.lease_until - attempt.opened_at).total_seconds() > 60


async def test_a_reservation_whose_caller_left_is_released(
    service: Service, user: User, ledger: Ledger
) -> None:
    opening = asyncio.create_task(begin(ledger, generation_of(service, user.id)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    await ledger.drain()
    attempt, prediction = await service.attempt(), await service.prediction()
    assert (attempt.state, attempt.cost_nano_usd) == ("released", 0)
    assert (prediction.status, prediction.outcome) == ("cancelled", "cancelled")


async def test_an_opening_that_was_refused_is_not_written_later(
    service: Service, user: User
) -> None:
    """Its thread stalls, and what takes it back may be written before."""
    database = wiring.database.open_database(service.settings.gateway)
    ledger = ledger_of(service, database)
    with stalling(LedgerTransaction, "write"):
        (error,) = await begin(ledger, generation_of(service, user.id))
        await ledger.drain()
    assert isinstance(error, DatabaseUnavailable)
    await ledger.flush()
    await database.close()
    assert await service.rows_count() == 0


@pytest.fixture
async def broken_database(
    settings: dict[str, Any], empty_database_url: str
) -> AsyncIterator[Database]:
    """A database without a table."""
    given = settings | {"database_url": empty_database_url}
    database = wiring.database.open_database(Settings(_env_file=None, **given).gateway)
    yield database
    await database.close()


async def test_of_what_was_refused_in_an_outage_no_more_than_a_part_is_kept(
    service: Service,
    user: User,
    broken_database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.ledger.ledger.MAX_UNWRITTEN_RELEASES", 2)
    ledger = ledger_of(service, broken_database)
    written: list[Settle] = []

    async def settle(entry: Settle) -> None:
        written.append(entry)

    refused = [generation_of(service, user.id) for _ in range(5)]
    errors = await begin(ledger, *refused)
    await ledger.drain()
    assert {type(error) for error in errors} == {DatabaseUnavailable}
    monkeypatch.setattr(ledger, "submit", settle)
    await ledger.flush()
    assert len(written) == 2


async def test_with_a_broken_database_nothing_opens(
    service: Service, user: User, broken_database: Database
) -> None:
    ledger = ledger_of(service, broken_database)
    errors = await begin(ledger, *(generation_of(service, user.id) for _ in range(3)))
    assert [type(error) for error in errors] == [DatabaseUnavailable] * 3
    assert await service.rows_count() == 0
