"""Limits of tokens, of generations at once and of the whole service, as a client meets them."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.errors import BudgetExceeded
from gateway.ledger.ledger import Ledger
from gateway.pipeline.attempts import Attempts
from gateway.providers.base import BadAnswer, Chunks, ProviderFailure, ProviderRequest, Reply, Usage
from gateway.rate_limits.limits import MAX_OVERDRAWN_MINUTES
from tests.fake_provider import USAGE, FakeProvider, chunk, completion
from tests.fixtures.service import Start
from tests.support import PLANS_TOML, Service, chat, error_of, eventually

CHAT = "/v1/chat/completions"
# The most that `chat()` of `tests.support` can use: role, text, what is around them and overhead,
# and the output.
BOUND_TOKENS = len("user" + "one two") + 8 + 16 + 64


class Gate:
    """Holds every answer of a scripted provider until it is opened."""

    def __init__(self, scripted: FakeProvider, usage: Usage | None = USAGE) -> None:
        self._open = asyncio.Event()
        self._usage = usage
        scripted.on_answer = self._answer

    def open(self) -> None:
        self._open.set()

    async def _answer(self, request: ProviderRequest) -> Reply:
        request.sent = True
        await self._open.wait()
        return Reply(completion("fine"), self._usage)


async def at_once(
    client: httpx2.AsyncClient, gate: Gate, count: int, passing: int
) -> list[httpx2.Response]:
    """So many requests at the same time; those that pass are answered when the others were."""
    tasks = [asyncio.create_task(client.post(CHAT, json=chat())) for _ in range(count)]

    async def refused() -> bool:
        return sum(task.done() for task in tasks) >= count - passing

    await eventually(refused)
    gate.open()
    return await asyncio.gather(*tasks)


def statuses(answers: list[httpx2.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


async def test_the_maximum_tokens_are_taken_and_unused_ones_given_back(
    scripted: FakeProvider, service: Service
) -> None:
    """A chat can use 99 tokens and uses 7: of 550, five fit at first, and five afterwards."""
    client = service.client(await service.create_user("thrifty"))
    for _ in range(2):
        answers = await at_once(client, Gate(scripted), 30, 5)
        assert statuses(answers) == {200: 5, 429: 25}
        refused = [answer for answer in answers if answer.status_code == 429]
        assert {error_of(answer)[2] for answer in refused} == {"tokens"}
        assert all(1 <= int(answer.headers["Retry-After"]) <= 11 for answer in refused)


async def test_tokens_that_may_have_been_used_do_not_come_back(
    scripted: FakeProvider, service: Service
) -> None:
    client = service.client(await service.create_user("thrifty"))
    answers = await at_once(client, Gate(scripted, usage=None), 6, 5)
    assert statuses(answers) == {200: 5, 429: 1}
    assert (await client.post(CHAT, json=chat())).status_code == 429


async def test_tokens_beyond_the_maximum_count(scripted: FakeProvider, service: Service) -> None:
    client = service.client(await service.create_user("thrifty"))
    Gate(scripted, usage=Usage(2, 1000)).open()
    assert (await client.post(CHAT, json=chat())).status_code == 200
    response = await client.post(CHAT, json=chat())
    assert error_of(response) == (429, "rate_limit_exceeded", "tokens")
    # 1002 tokens and the 99 of the next are too many for 550, which come back in a minute.
    assert int(response.headers["Retry-After"]) == pytest.approx(
        (1002 + 99 - 550) / 550 * 60, abs=2
    )


async def test_a_wrong_number_of_tokens_blocks_callers_for_an_hour_at_most(
    scripted: FakeProvider, service: Service
) -> None:
    client = service.client(await service.create_user("thrifty"))
    Gate(scripted, usage=Usage(2, 2**31 - 1)).open()
    assert (await client.post(CHAT, json=chat())).status_code == 200
    wait = int((await client.post(CHAT, json=chat())).headers["Retry-After"])
    assert 0 < wait <= (MAX_OVERDRAWN_MINUTES + 1) * 60


async def test_an_unsent_request_uses_no_tokens(scripted: FakeProvider, service: Service) -> None:
    client = service.client(await service.create_user("thrifty"))

    async def fail(_: ProviderRequest) -> Reply:
        raise BadAnswer("no answer")

    scripted.on_answer = fail
    for _ in range(10):
        assert (await client.post(CHAT, json=chat())).status_code == 502


async def test_so_many_generations_run_at_once(scripted: FakeProvider, service: Service) -> None:
    client = service.client(await service.create_user("narrow"))
    for _ in range(2):
        answers = await at_once(client, Gate(scripted), 20, 2)
        assert statuses(answers) == {200: 2, 429: 18}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert error_of(refused) == (429, "rate_limit_exceeded", "concurrency")
        assert 1 <= int(refused.headers["Retry-After"]) <= 70


@pytest.mark.parametrize(
    "fault", [ProviderFailure("no"), RuntimeError("no"), TimeoutError()], ids=repr
)
async def test_what_fails_frees_its_slot(
    scripted: FakeProvider, service: Service, fault: Exception
) -> None:
    client = service.client(await service.create_user("narrow"))

    async def fail(_: ProviderRequest) -> Reply:
        raise fault

    scripted.on_answer = fail
    for _ in range(5):
        assert (await client.post(CHAT, json=chat())).status_code in {500, 502, 504}


async def test_a_crash_while_the_result_is_reported_frees_the_slot(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client(await service.create_user("narrow"))
    with monkeypatch.context() as context:
        context.setattr(Attempts, "finish", _crash)
        for _ in range(5):
            assert (await client.post(CHAT, json=chat())).status_code == 500
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def _crash(*_: object) -> None:
    raise RuntimeError


async def test_a_client_that_leaves_frees_its_slot(
    scripted: FakeProvider, service: Service
) -> None:
    client = service.client(await service.create_user("narrow"))

    async def endless(request: ProviderRequest) -> Chunks:
        request.sent = True
        yield [chunk("fi")]
        await asyncio.Event().wait()

    scripted.on_stream = endless
    for _ in range(2):
        async with client.stream("POST", CHAT, json=chat(stream=True)) as response:
            assert await anext(response.aiter_lines())

    async def passes() -> bool:
        return (await client.post(CHAT, json=chat())).status_code == 200

    await eventually(passes)


async def test_what_the_ledger_refuses_was_never_taken(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.client(await service.create_user("one"))
    with monkeypatch.context() as context:

        async def refuse(*_: Any, **__: Any) -> None:
            raise BudgetExceeded("Nothing is left.")

        context.setattr(Ledger, "reserve", refuse)
        for _ in range(3):
            assert (await client.post(CHAT, json=chat())).status_code == 402
    assert (await client.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_above_a_limit_is_refused_at_once(service: Service, stream: bool) -> None:
    client = service.client(await service.create_user("thrifty"))
    response = await client.post(CHAT, json=chat("x" * 500, stream=stream))
    assert error_of(response)[:2] == (400, "request_too_large")
    assert "550 tokens a minute" in response.json()["error"]["message"]
    assert await service.rows_count() == 0
    assert (await client.post(CHAT, json=chat())).headers[
        "x-ratelimit-remaining-requests"
    ] == "5999"


async def test_the_headers_of_the_tightest_limit(start: Start, policy_dir: Path) -> None:
    _limit_service(policy_dir, "requests_per_minute = 3", "tokens_per_minute = 1000")
    service = await start()
    client = service.client(await service.create_user("thrifty"))
    answers = [await client.post(CHAT, json=chat()) for _ in range(4)]
    assert statuses(answers) == {200: 3, 429: 1}
    told = [
        {name: answer.headers[f"x-ratelimit-{name}-requests"] for name in ("limit", "remaining")}
        for answer in answers
    ]
    assert told == [{"limit": "3", "remaining": left} for left in ("2", "1", "0", "0")]
    first, refused = answers[0].headers, answers[-1].headers
    assert (first["x-ratelimit-limit-tokens"], first["x-ratelimit-remaining-tokens"]) == (
        "550",
        str(550 - BOUND_TOKENS),
    )
    assert first["x-ratelimit-reset-tokens"] == "11s"
    assert {f"x-ratelimit-{word}-tokens" for word in ("limit", "remaining", "reset")} <= set(
        refused
    )


async def test_without_a_token_limit_there_is_no_token_header(client: httpx2.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat())
    names = {name for name in response.headers if name.startswith("x-ratelimit")}
    assert names == {f"x-ratelimit-{word}-requests" for word in ("limit", "remaining", "reset")}


@pytest.mark.parametrize(
    ("limit", "param"),
    [
        ("requests_per_minute = 4", "requests"),
        (f"tokens_per_minute = {4 * BOUND_TOKENS}", "tokens"),
        ("concurrent_generations = 4", "concurrency"),
    ],
)
async def test_all_users_share_the_limits_of_the_service(
    scripted: FakeProvider, start: Start, policy_dir: Path, limit: str, param: str
) -> None:
    _limit_service(policy_dir, limit)
    service = await start()
    clients = [service.client(await service.create_user()) for _ in range(10)]
    gate = Gate(scripted)
    tasks = [asyncio.create_task(client.post(CHAT, json=chat())) for client in clients]

    async def refused() -> bool:
        return sum(task.done() for task in tasks) == 6

    await eventually(refused)
    gate.open()
    answers = await asyncio.gather(*tasks)
    assert statuses(answers) == {200: 4, 429: 6}
    assert {error_of(a)[2] for a in answers if a.status_code == 429} == {param}


def _limit_service(policy_dir: Path, *limits: str) -> None:
    plans = "\n".join(["[service]", *limits, PLANS_TOML])
    (policy_dir / "plans.toml").write_text(plans, encoding="utf-8")
