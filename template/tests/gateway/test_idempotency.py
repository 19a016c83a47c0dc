"""`Idempotency-Key`: one call, one bill, and the same answer as often as it is asked for."""

import asyncio
import datetime as dt
import json
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest
from sqlalchemy import update

from gateway.accounts.principals import Role
from gateway.db.tables import attempts, users, utc_now
from gateway.errors import DatabaseUnavailable, NotFound, ServiceError
from gateway.idempotency.idempotency import MAX_BYTES
from gateway.idempotency.sealing import Sealer
from gateway.idempotency.store import (
    RETRY_SECONDS,
    SWEPT_AT_ONCE,
    Claim,
    IdempotencyKey,
    IdempotencyStore,
    idempotency,
)
from gateway.ledger.entries import LEASE_MARGIN
from gateway.ledger.records import Records
from gateway.providers.base import Chunks, ProviderFailure, ProviderRequest, Reply
from gateway.schemas.chat import ChatRequest
from tests.fake_provider import (
    MAX_COST,
    USAGE,
    FakeProvider,
    chunk,
    completion,
    say_fine,
    stream_fine,
    usage_chunk,
)
from tests.fixtures.service import Start
from tests.ledger_helpers import add_plans, usd
from tests.simulator.faults import Fault
from tests.simulator.wiring import FORMATS
from tests.support import (
    POLICY,
    SECRET_KEY,
    Service,
    User,
    chat,
    error_of,
    eventually,
    leave_with_the_answer,
    said,
    sse,
    stalling,
    unique,
)

CHAT, EMBEDDINGS, PREDICTIONS = "/v1/chat/completions", "/v1/embeddings", "/v1/predictions"
KEY = {"Idempotency-Key": "once"}
LATER = {"Prefer": "respond-async"}
IN_FLIGHT = (409, "idempotency_in_flight", None)
MISMATCH = (422, "idempotency_mismatch", "idempotency-key")
UNKNOWN = (409, "outcome_unknown", "idempotency-key")
LONG_AGO = dt.timedelta(days=2)
# Each way to ask for a generation: address, body, and headers besides the key.
PROMPT = {"model": "offline/echo", "input": {"prompt": "one two"}}
WAYS: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "chat": (CHAT, chat(), {}),
    "stream": (CHAT, chat(stream=True, stream_options={"include_usage": True}), {}),
    "embedding": (EMBEDDINGS, {"model": "offline/embedding", "input": ["one", "two"]}, {}),
    "prediction": (PREDICTIONS, PROMPT, {}),
    "later": (PREDICTIONS, PROMPT, LATER),
}
CHATS = [name for name in POLICY if name.endswith("/chat")]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


class Gate:
    """An answer, or the second half of a stream, that waits until it is let through."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def answer(self, request: ProviderRequest) -> Reply:
        request.sent = True
        await self.opened.wait()
        return Reply(completion("fine"), USAGE)

    async def stream(self, request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("one")]
        await self.opened.wait()
        yield [chunk(" two", "stop"), usage_chunk(USAGE)]


async def ask(
    client: httpx2.AsyncClient, way: str = "chat", key: str = "once", **changes: Any
) -> httpx2.Response:
    path, body, headers = WAYS[way]
    given = {**headers, "Idempotency-Key": key}
    return await client.post(path, json=body | changes, headers=given)


async def overdue(service: Service) -> None:
    """As if the lease of every request had ended."""
    await service.write(update(idempotency).values(lease_until=utc_now() - LONG_AGO))


@pytest.mark.parametrize("way", WAYS)
async def test_the_same_request_gets_the_same_answer_and_takes_nothing(
    service: Service, way: str
) -> None:
    client = service.client(await service.create_user("one"))
    first, *others = [await ask(client, way) for _ in range(3)]
    assert first.status_code == {"prediction": 201, "later": 202}.get(way, 200)
    for other in others:
        assert (other.status_code, other.content) == (first.status_code, first.content)
        for name in ("Content-Type", "Location", "X-Prediction-ID", "x-served-model"):
            assert other.headers.get(name) == first.headers.get(name)
        assert other.headers["X-Request-ID"] != first.headers["X-Request-ID"]
        assert other.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert len(await service.rows(attempts)) == 1
    # The plan's only request of this minute is taken, and another key needs another.
    assert (await ask(client, way, key="twice")).status_code == 429


async def test_a_replay_is_in_the_log(service: Service, client: httpx2.AsyncClient) -> None:
    first, _ = await ask(client), await ask(client)
    paid, replayed = service.access_events()
    assert replayed["prediction_id"] == paid["prediction_id"] == first.headers["X-Prediction-ID"]
    assert replayed["replayed"] is True
    assert "cost_nano_usd" not in replayed


async def test_without_a_key_every_request_runs(
    service: Service, client: httpx2.AsyncClient
) -> None:
    for _ in range(2):
        assert (await client.post(CHAT, json=chat())).status_code == 200
    assert len(await service.rows(attempts)) == 2
    assert await service.rows(idempotency) == []


@pytest.mark.parametrize(
    ("way", "changes"),
    [
        ("chat", chat("other")),
        ("chat", {"stream": True}),
        ("chat", {"temperature": 0.5}),
        ("stream", {"stream_options": None}),
        ("embedding", {"input": ["one", "other"]}),
        ("prediction", {"input": {"prompt": "other"}}),
    ],
)
async def test_another_request_with_the_same_key_is_refused(
    service: Service, client: httpx2.AsyncClient, way: str, changes: dict[str, Any]
) -> None:
    first = await ask(client, way)
    assert error_of(await ask(client, way, **changes)) == MISMATCH
    assert (await ask(client, way)).content == first.content
    assert len(await service.rows(attempts)) == 1


async def test_to_wait_and_not_to_wait_are_two_requests(client: httpx2.AsyncClient) -> None:
    assert (await ask(client, "prediction")).status_code == 201
    assert error_of(await ask(client, "later")) == MISMATCH


async def test_the_same_request_may_be_written_in_another_way(
    service: Service, client: httpx2.AsyncClient
) -> None:
    first = await ask(client)
    body = json.dumps({"stream": False, **dict(reversed(chat().items()))}, indent=2).encode()
    headers = {**KEY, "Content-Type": "application/json; charset=utf-8"}
    again = await client.post(CHAT, content=body, headers=headers)
    assert again.content == first.content
    assert len(await service.rows(attempts)) == 1


async def test_a_key_belongs_to_a_user_and_a_route(service: Service) -> None:
    one, other = [service.client(await service.create_user()) for _ in range(2)]
    ids = [
        (await ask(client, way)).headers["X-Prediction-ID"]
        for client in (one, other)
        for way in ("chat", "embedding", "prediction")
    ]
    assert len(set(ids)) == 6
    assert (await ask(other)).headers["X-Prediction-ID"] == ids[3]


async def test_one_of_many_simultaneous_requests_runs(scripted: FakeProvider, start: Start) -> None:
    gate = Gate()
    scripted.on_answer = gate.answer
    service = await start()
    client = service.client(await service.create_user())
    asked = [asyncio.create_task(ask(client)) for _ in range(20)]

    async def one_is_left() -> bool:
        return sum(not request.done() for request in asked) == 1

    await eventually(one_is_left)
    gate.opened.set()
    answers = await asyncio.gather(*asked)
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 19
    assert {error_of(answer) for answer in refused} == {IN_FLIGHT}
    assert {answer.headers["Retry-After"] for answer in refused} == {str(RETRY_SECONDS)}
    assert (await ask(client)).status_code == 200
    assert len(scripted.asked) == len(await service.rows(attempts)) == 1


async def test_a_stream_that_runs_is_in_flight(scripted: FakeProvider, start: Start) -> None:
    gate = Gate()
    scripted.on_stream = gate.stream
    service = await start()
    client = service.client(await service.create_user())
    path, body, _ = WAYS["stream"]
    async with client.stream("POST", path, json=body, headers=KEY) as response:
        lines = response.aiter_lines()
        begun = [await anext(lines)]
        assert error_of(await ask(client, "stream")) == IN_FLIGHT
        gate.opened.set()
        whole = "\n".join([*begun, *[line async for line in lines]])
    replay = (await ask(client, "stream")).text
    assert (sse(replay), said(sse(replay))) == (sse(whole), "one two")
    assert len(scripted.asked) == 1


async def test_a_refusal_by_the_limits_leaves_the_key_free(service: Service) -> None:
    user = await service.create_user("one")
    client = service.client(user)
    await client.post(CHAT, json=chat())
    assert (await ask(client)).status_code == 429
    assert await service.rows(idempotency) == []
    await service.write(update(users).where(users.c.id == user.id).values(plan="many"))
    assert (await ask(client)).status_code == 200


@pytest.mark.parametrize(
    ("way", "wrong", "error"),
    [
        ("chat", {"store": True}, (400, "unsupported_parameter", "store")),
        ("chat", chat(model="offline/none"), (404, "model_not_found", "model")),
        ("chat", chat(max_tokens=65), (400, "request_too_large", "max_tokens")),
        ("prediction", {"input": {}}, (422, "invalid_request", "input.messages")),
        ("prediction", {"model": "none"}, (404, "model_not_found", "model")),
    ],
)
async def test_a_refused_request_may_be_mended(
    client: httpx2.AsyncClient,
    way: str,
    wrong: dict[str, Any],
    error: tuple[int, str, str],
) -> None:
    assert error_of(await ask(client, way, **wrong)) == error
    assert (await ask(client, way)).status_code in {200, 201}


@pytest.mark.parametrize("way", ["chat", "stream", "prediction"])
@pytest.mark.parametrize("status", [None, 429, 500])
async def test_after_a_provider_failed_the_next_request_runs(
    scripted: FakeProvider, start: Start, way: str, status: int | None
) -> None:
    fine = scripted.on_answer, scripted.on_stream

    async def fail(request: ProviderRequest) -> Reply:
        request.sent = True
        raise ProviderFailure("no", status=status)

    async def fail_to_stream(request: ProviderRequest) -> Chunks:
        await fail(request)
        yield []

    scripted.on_answer, scripted.on_stream = fail, fail_to_stream
    service = await start()
    client = service.client(await service.create_user())
    assert (await ask(client, way)).status_code in {502, 503}
    scripted.on_answer, scripted.on_stream = fine
    first, again = await ask(client, way), await ask(client, way)
    assert first.is_success
    assert again.content == first.content
    assert first.headers["X-Prediction-ID"] == again.headers["X-Prediction-ID"]


@pytest.mark.parametrize("model", CHATS)
async def test_a_stream_that_the_provider_cuts_ends_with_an_error_and_frees_the_key(
    service: Service, client: httpx2.AsyncClient, model: str
) -> None:
    service.simulator.inject(Fault(kind="cut", after=2))
    *_, last = sse((await ask(client, "stream", model=model)).text)
    assert last["error"]["code"] == "provider_error"
    first, again = [await ask(client, "stream", model=model) for _ in range(2)]
    assert first.text.endswith("data: [DONE]\n\n")
    assert again.content == first.content
    assert len(service.simulator.calls) == 2


async def test_a_passed_deadline_frees_the_key(scripted: FakeProvider, start: Start) -> None:
    gate = Gate()
    scripted.on_answer, scripted.on_stream = gate.answer, gate.stream
    service = await start(request_deadline_seconds=0.5)
    client = service.client(await service.create_user())
    assert error_of(await ask(client))[:2] == (504, "deadline_exceeded")
    *_, last = sse((await ask(client, "stream", key="other")).text)
    assert last["error"]["code"] == "deadline_exceeded"
    gate.opened.set()
    service.settings.request_deadline_seconds = 60
    assert (await ask(client)).status_code == 200
    assert (await ask(client, "stream", key="other")).text.endswith("data: [DONE]\n\n")


async def test_a_client_that_left_a_stream_is_not_served_twice(
    scripted: FakeProvider, start: Start
) -> None:
    scripted.on_stream = Gate().stream
    service = await start()
    client = service.client(await service.create_user())
    path, body, _ = WAYS["stream"]
    async with client.stream("POST", path, json=body, headers=KEY) as response:
        await anext(response.aiter_lines())

    async def ended() -> bool:
        return error_of(await ask(client, "stream")) == UNKNOWN

    assert await eventually(ended)
    answer = await ask(client, "stream")
    assert error_of(answer) == UNKNOWN
    assert answer.headers["x-should-retry"] == "false"
    assert len(scripted.asked) == 1


async def _blocked(
    scripted: FakeProvider, start: Start, policy_dir: Path, way: str
) -> tuple[Service, httpx2.AsyncClient, list[asyncio.Task[httpx2.Response]], asyncio.Event]:
    """Ten requests with a key each, of which the first runs and the others wait for its budget."""
    budget = f"requests_per_minute = 60, daily_budget_usd = {usd(MAX_COST)}"
    add_plans(policy_dir, f"capped = {{{budget}}}")
    gate = Gate()
    scripted.on_answer, scripted.on_stream = gate.answer, gate.stream
    service = await start()
    client = service.client(await service.create_user("capped"))
    asked = [asyncio.create_task(ask(client, way, key="0"))]

    async def is_asked() -> bool:
        return bool(scripted.asked)

    async def all_wait() -> bool:
        return len(await service.rows(idempotency)) == len(asked)

    await eventually(is_asked)
    asked += [asyncio.create_task(ask(client, way, key=str(number))) for number in range(1, 10)]
    await eventually(all_wait)
    return service, client, asked, gate.opened


async def _statuses(client: httpx2.AsyncClient, way: str) -> list[tuple[int, str]]:
    """What each of the ten keys gets."""
    answers = [await ask(client, way, key=str(number)) for number in range(10)]
    codes = ["" if each.is_success else error_of(each)[1] for each in answers]
    return [(each.status_code, code) for each, code in zip(answers, codes, strict=True)]


@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_the_keys_of_requests_that_began_nothing_are_free_after_a_stop(
    scripted: FakeProvider, start: Start, policy_dir: Path, way: str
) -> None:
    service, client, asked, _ = await _blocked(scripted, start, policy_dir, way)
    for task in asyncio.all_tasks():  # What uvicorn does when the time to stop is over.
        if getattr(task.get_coro(), "__name__", "") == "run_asgi":
            task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await service.write(update(users).values(plan="many"))
    scripted.on_answer, scripted.on_stream = say_fine, stream_fine

    async def all_ended() -> bool:
        states = {row.state for row in await service.rows(attempts)}
        return states <= {"uncertain", "released"}

    await eventually(all_ended)
    first, *others = await _statuses(client, way)
    assert others == [(200, "")] * 9
    # The stream has sent an error; another client may have left.
    assert first == ((200, "") if way == "stream" else (409, "outcome_unknown"))


async def test_the_keys_of_requests_that_began_nothing_are_free_after_a_crash(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    key, asked = IdempotencyKey(user.id, CHAT, "once"), [ChatRequest(**chat()), False]
    await service.engine.idempotency.acquire(key, asked)
    assert error_of(await ask(client)) == (409, "idempotency_in_flight", None)
    await overdue(service)
    first = await ask(client)
    assert first.status_code == 200
    assert (await ask(client)).content == first.content


async def test_a_client_that_left_while_it_waited_for_budget_may_ask_again(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    service, client, asked, opened = await _blocked(scripted, start, policy_dir, "stream")
    for task in asked[1:]:
        task.cancel()
    await asyncio.gather(*asked[1:], return_exceptions=True)
    opened.set()
    assert (await asked[0]).status_code == 200
    await service.write(update(users).values(plan="many"))
    scripted.on_stream = stream_fine

    async def is_free() -> bool:
        return (await ask(client, "stream", key="9")).status_code == 200

    assert await eventually(is_free)


async def test_a_client_that_left_gets_the_stored_answer(
    scripted: FakeProvider, start: Start
) -> None:
    gate = Gate()
    scripted.on_answer = gate.answer
    service = await start()
    client = service.client(await service.create_user())
    with pytest.raises(httpx2.ReadTimeout):
        await client.post(CHAT, json=chat(), headers=KEY, timeout=0.3)
    gate.opened.set()

    async def answered() -> bool:
        return (await ask(client)).status_code == 200

    assert await eventually(answered)
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("way", ["chat", "stream"])
async def test_after_a_crash_nothing_is_asked_again(
    scripted: FakeProvider, start: Start, way: str
) -> None:
    async def crash(request: ProviderRequest) -> Reply:
        request.sent = True
        raise RuntimeError("a bug")

    async def crash_midway(request: ProviderRequest) -> Chunks:
        yield [chunk("one")]
        await crash(request)

    scripted.on_answer, scripted.on_stream = crash, crash_midway
    service = await start()
    client = service.client(await service.create_user())
    if way == "chat":
        assert error_of(await ask(client, way)) == (500, "internal_error", None)
    else:
        with pytest.raises(httpx2.RemoteProtocolError):
            await ask(client, way)
    assert error_of(await ask(client, way)) == UNKNOWN
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("way", ["prediction", "later"])
@pytest.mark.parametrize("error", [DatabaseUnavailable, NotFound])
async def test_a_prediction_whose_record_cannot_be_read_is_not_made_again(
    scripted: FakeProvider,
    start: Start,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    error: type[ServiceError],
) -> None:
    """The database is gone for a moment, or the record was erased."""

    async def fail(*_: object) -> NoReturn:
        raise error("It cannot be read.")

    service = await start()
    client = service.client(await service.create_user())
    with monkeypatch.context() as patch:
        patch.setattr(Records, "get", fail)
        first = await ask(client, way)
    assert error_of(first) == (error.status, error.code, None)
    assert error_of(await ask(client, way)) == UNKNOWN
    await service.engine.runner.close()
    assert len(await service.rows(attempts)) == 1


async def test_when_its_lease_ends_the_outcome_is_unknown_until_it_is_known(
    scripted: FakeProvider, start: Start
) -> None:
    gate = Gate()
    scripted.on_answer = gate.answer
    service = await start()
    client = service.client(await service.create_user())
    asked = asyncio.create_task(ask(client))

    async def called() -> bool:
        return bool(scripted.asked)

    await eventually(called)
    (row,) = await service.rows(idempotency)
    lease = service.settings.request_deadline_seconds + LEASE_MARGIN.total_seconds()
    assert abs((row.lease_until - utc_now()).total_seconds() - lease) < 15
    assert error_of(await ask(client)) == IN_FLIGHT
    await overdue(service)
    assert error_of(await ask(client)) == UNKNOWN
    gate.opened.set()
    first = await asked
    assert (await ask(client)).content == first.content
    assert len(scripted.asked) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_answers_outlive_a_restart_and_a_new_secret_key(start: Start, way: str) -> None:
    before = await start()
    user = await before.create_user()
    first = await ask(before.client(user), way)
    await before.stop()
    after = await start(secret_key=SECRET_KEY[::-1], secret_key_previous=SECRET_KEY)
    again = await ask(after.client(user), way)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert len(await after.rows(attempts)) == 1


async def test_without_its_secret_key_a_stored_answer_is_lost(start: Start) -> None:
    before = await start()
    user = await before.create_user()
    await ask(before.client(user))
    await before.stop()
    after = await start(secret_key=SECRET_KEY[::-1])
    # The old secret may have signed the user's access.
    response = await ask(after.client(await after.admit(user.id, user.email)))
    assert error_of(response) == UNKNOWN
    assert "SECRET_KEY" in response.json()["error"]["message"]
    assert len(await after.rows(attempts)) == 1


@pytest.mark.parametrize("way", WAYS)
async def test_stored_answers_are_encrypted(start: Start, way: str) -> None:
    service = await start(store_content=False)
    client = service.client(await service.create_user())
    canary = unique("canary")
    changes: dict[str, dict[str, Any]] = {
        "embedding": {"input": canary},
        "prediction": {"input": {"prompt": canary}},
        "later": {"input": {"prompt": canary}},
    }
    given = changes.get(way, {"messages": chat(canary)["messages"]})
    first = await ask(client, way, **given)
    assert (await ask(client, way, **given)).content == first.content
    (row,) = await service.rows(idempotency)
    assert canary not in repr(row)
    assert b"offline" not in row.answer
    assert len(row.answer) > len(first.content)


async def test_a_stored_answer_opens_for_its_own_key_alone(service: Service) -> None:
    one, other = [await service.create_user() for _ in range(2)]
    for user in (one, other):
        assert (await ask(service.client(user))).status_code == 200
    (row,) = [row for row in await service.rows(idempotency) if row.user_id == one.id]
    theirs = idempotency.c.user_id == other.id
    await service.write(update(idempotency).where(theirs).values(answer=row.answer))
    assert error_of(await ask(service.client(other))) == UNKNOWN


@pytest.mark.parametrize("way", ["chat", "later"])
async def test_an_erased_answer_is_not_replayed(
    service: Service, client: httpx2.AsyncClient, way: str
) -> None:
    first = await ask(client, way)
    path = f"{PREDICTIONS}/{first.headers['X-Prediction-ID']}"
    assert (await client.delete(path)).status_code == 204
    assert error_of(await ask(client, way)) == UNKNOWN
    (row,) = await service.rows(idempotency)
    assert row.answer is None
    assert len(await service.rows(attempts)) == 1


async def test_what_is_erased_while_it_is_written_is_not_stored(
    scripted: FakeProvider, start: Start
) -> None:
    gate = Gate()
    scripted.on_stream = gate.stream
    service = await start()
    client = service.client(await service.create_user())
    path, body, _ = WAYS["stream"]
    async with client.stream("POST", path, json=body, headers=KEY) as response:
        erased = await client.delete(f"{PREDICTIONS}/{response.headers['X-Prediction-ID']}")
        assert erased.status_code == 204
        *_, last = sse((await response.aread()).decode())
        assert last["error"]["code"] == "conflict"
    assert await service.rows(idempotency) == []


async def test_an_answer_that_is_too_large_is_not_kept_and_not_made_again(
    scripted: FakeProvider, start: Start
) -> None:
    async def flood(request: ProviderRequest) -> Chunks:
        request.sent = True
        for _ in range(3):
            yield [chunk("x" * (MAX_BYTES // 2))]
        yield [usage_chunk(USAGE)]

    scripted.on_stream = flood
    service = await start()
    client = service.client(await service.create_user())
    first = await ask(client, "stream")
    assert len(said(sse(first.text))) == MAX_BYTES // 2 * 3
    response = await ask(client, "stream")
    assert error_of(response) == UNKNOWN
    assert str(MAX_BYTES) in response.json()["error"]["message"]
    (row,) = await service.rows(idempotency)
    assert row.answer is None
    assert len(scripted.asked) == 1


async def test_a_key_is_kept_for_a_day(service: Service, client: httpx2.AsyncClient) -> None:
    first = await ask(client)
    (row,) = await service.rows(idempotency)
    left = row.expires_at - utc_now()
    assert dt.timedelta(hours=23.9) < left <= dt.timedelta(hours=24)
    await service.write(update(idempotency).values(expires_at=utc_now() - LONG_AGO))
    again = await ask(client)
    assert again.headers["X-Prediction-ID"] != first.headers["X-Prediction-ID"]
    assert (await ask(client)).content == again.content
    assert len(await service.rows(attempts)) == 2


async def test_what_has_expired_is_removed_bit_by_bit(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await asyncio.gather(*(ask(client, key=f"old {place}") for place in range(SWEPT_AT_ONCE + 5)))
    await service.write(update(idempotency).values(expires_at=utc_now() - LONG_AGO))
    await ask(client, key="new")
    assert len(await service.rows(idempotency)) == 6
    await ask(client, key="newer")
    keys = Counter(row.key for row in await service.rows(idempotency))
    assert keys == {"new": 1, "newer": 1}


async def test_a_database_that_is_slow_holds_no_answer_up(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.idempotency.store.STORE_SECONDS", 0)
    service = await start()
    client = service.client(await service.create_user())
    first = await ask(client)
    assert first.status_code == 200

    async def stored() -> bool:
        return (await ask(client)).content == first.content

    assert await eventually(stored)
    assert any(event["level"] == "warning" for event in service.events)


async def test_a_key_that_could_not_be_acquired_in_time_is_free(
    service: Service, client: httpx2.AsyncClient
) -> None:
    with stalling(IdempotencyStore, "_acquire"):
        assert error_of(await ask(client)) == (503, "database_unavailable", None)
    assert (await ask(client)).status_code == 200


async def test_a_key_whose_caller_leaves_while_it_is_acquired_is_free(service: Service) -> None:
    key = IdempotencyKey((await service.create_user()).id, CHAT, "once")
    store = IdempotencyStore(service.database, 30)
    await leave_with_the_answer(store.acquire(key, b"request"))
    assert isinstance(await store.acquire(key, b"request"), Claim)


async def test_a_user_without_the_scope_gets_no_replay(service: Service) -> None:
    user = await service.create_user()
    client = service.client(user)
    await ask(client)
    demoted = update(users).where(users.c.id == user.id).values(role=Role.AUDITOR.value)
    await service.write(demoted)
    assert error_of(await ask(client)) == (403, "forbidden", None)


async def test_work_that_runs_on_is_begun_once(
    service: Service, client: httpx2.AsyncClient
) -> None:
    provider = FORMATS[0].name
    service.simulator.inject(Fault(kind="timeout", provider=provider))
    model = next(name for name in POLICY if name.startswith(f"{provider}/"))
    first, again = [await ask(client, "later", model=model) for _ in range(2)]
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["Location"] == first.headers["Location"]

    async def called() -> bool:
        return bool(service.simulator.calls)

    await eventually(called)
    assert (await client.delete(first.headers["Location"])).status_code == 204
    assert len(await service.rows(attempts)) == 1


@pytest.mark.parametrize("about", [("usr_1", "b"), ("usr_1", "a", ""), ()])
def test_a_sealed_message_opens_with_the_same_texts_only(about: tuple[str, ...]) -> None:
    sealer = Sealer("test", SECRET_KEY)
    sealed = sealer.seal(b"text", "usr_1", "a")
    assert sealer.open(sealed, "usr_1", "a") == b"text"
    assert sealer.open(sealed, *about) is None
    assert sealer.open(sealed[:-1], "usr_1", "a") is None
    assert Sealer("other", SECRET_KEY).open(sealed, "usr_1", "a") is None
    assert sealer.seal(b"text", "usr_1", "a") != sealed
