"""The limits of a plan, as a client meets them."""

import asyncio
from collections import Counter
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import update

from gateway.db.tables import predictions, users
from gateway.http.bodies import SMALL_BYTES
from gateway.rate_limits.limits import duration
from tests.fixtures.service import Start
from tests.support import MODELS_TOML, Service, chat, error_of

CHAT = "/v1/chat/completions"


async def test_one_request_above_the_limit_is_refused(service: Service) -> None:
    client = service.client(await service.create_user("few"))
    requests = [client.post(CHAT, json=chat()) for _ in range(6)]
    answers = await asyncio.gather(*requests)
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 1}
    assert len(await service.rows(predictions)) == 5


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}], ids=["alone", "with a key"])
async def test_limits_are_checked_before_the_maximum_usage_of_a_large_body(
    service: Service, monkeypatch: pytest.MonkeyPatch, key: dict[str, str]
) -> None:
    client = service.client(await service.create_user("one"))
    assert (await client.post(CHAT, json=chat())).status_code == 200
    monkeypatch.setattr("gateway.pricing.max_usage", None)
    if not key:
        monkeypatch.setattr("gateway.http.context.parse", None)
    response = await client.post(CHAT, json=chat("x" * SMALL_BYTES), headers=key)
    assert error_of(response) == (429, "rate_limit_exceeded", "requests")
    assert 1 <= int(response.headers["Retry-After"]) <= 60
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


@pytest.mark.parametrize("plan", ["one", "thrifty"])
async def test_peeking_at_the_limits_takes_nothing(service: Service, plan: str) -> None:
    client = service.client(await service.create_user(plan))
    for _ in range(3):
        response = await client.post(CHAT, json=chat("x" * SMALL_BYTES))
        assert error_of(response) == (400, "request_too_large", "messages")
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_a_replay_of_a_large_body_comes_before_the_limits(
    start: Start, policy_dir: Path
) -> None:
    models = MODELS_TOML.replace("max_input_tokens = 2000", "max_input_tokens = 200_000")
    (policy_dir / "models.toml").write_text(models, encoding="utf-8")
    service = await start()
    client = service.client(await service.create_user("one"))
    body, key = chat("x" * SMALL_BYTES), {"Idempotency-Key": "one"}
    answers = [await client.post(CHAT, json=body, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, chat()),
        (CHAT, chat(stream=True)),
        ("/v1/embeddings", {"model": "offline/embedding", "input": "one"}),
        ("/v1/predictions", {"model": "offline/echo", "input": {"prompt": "one"}}),
    ],
    ids=["chat", "stream", "embedding", "prediction"],
)
async def test_every_generation_counts(
    service: Service, path: str, body: dict[str, object]
) -> None:
    client = service.client(await service.create_user("one"))
    assert (await client.post(path, json=body)).status_code < 300
    response = await client.post(path, json=body)
    assert error_of(response) == (429, "rate_limit_exceeded", "requests")
    assert response.headers["x-ratelimit-limit-requests"] == "1"
    assert response.headers["x-ratelimit-remaining-requests"] == "0"
    wait = int(response.headers["Retry-After"])
    assert 1 <= wait <= 60
    assert response.headers["x-ratelimit-reset-requests"] == duration(wait)
    assert len(await service.rows(predictions)) == 1


async def test_reading_does_not_count(service: Service) -> None:
    client = service.client(await service.create_user("one"))
    for path in ("/v1/models", "/v1/predictions", "/v1/me", "/v1/usage"):
        assert (await client.get(path)).status_code == 200
    assert (await client.post(CHAT, json=chat())).status_code == 200


@pytest.mark.parametrize(
    "body",
    [chat(model="none"), chat(service_tier="priority"), chat("x" * 5000), {}],
    ids=["unknown model", "unsupported parameter", "too large", "malformed"],
)
async def test_a_request_that_is_wrong_does_not_count(
    service: Service, body: dict[str, object]
) -> None:
    client = service.client(await service.create_user("one"))
    assert (await client.post(CHAT, json=body)).status_code in {400, 404}
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_one_users_limit_is_not_anothers(service: Service) -> None:
    first, second = [service.client(await service.create_user("one")) for _ in range(2)]
    statuses = [
        (await client.post(CHAT, json=chat())).status_code for client in (first, first, second)
    ]
    assert statuses == [200, 429, 200]


async def test_remaining_counts_down(service: Service) -> None:
    client = service.client(await service.create_user("few"))
    answers = [await client.post(CHAT, json=chat()) for _ in range(3)]
    left = [answer.headers["x-ratelimit-remaining-requests"] for answer in answers]
    assert left == ["4", "3", "2"]


async def test_a_request_passes_after_retry_after(service: Service) -> None:
    """The wait is real, as the clock of the limits is their own: a second is the shortest."""
    client = service.client(await service.create_user("brisk"))
    refused = await _until_refused(client)
    assert refused.headers["Retry-After"] == "1"
    await asyncio.sleep(1)
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_a_user_with_an_unknown_plan_is_refused(service: Service) -> None:
    user = await service.create_user("gold")
    response = await service.client(user).post(CHAT, json=chat())
    assert error_of(response) == (403, "forbidden", None)
    assert "gold" in response.json()["error"]["message"]
    assert await service.rows_count() == 0


async def test_a_new_plan_counts_at_once(service: Service) -> None:
    user = await service.create_user("one")
    client = service.client(user)
    await client.post(CHAT, json=chat())
    assert (await client.post(CHAT, json=chat())).status_code == 429
    change = update(users).where(users.c.id == user.id).values(plan="many")
    await service.database.transact(lambda connection: connection.execute(change))
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_refusals_are_counted_and_not_recorded(start: Start) -> None:
    service = await start(metrics_token="a" * 32)
    client = service.client(await service.create_user("one"))
    before = await service.metric("limit_refusals_total", limit="requests")
    for _ in range(3):
        await client.post(CHAT, json=chat())
    assert await service.metric("limit_refusals_total", limit="requests") == before + 2
    assert await service.rows_count() == 2


async def _until_refused(client: httpx2.AsyncClient) -> httpx2.Response:
    while True:
        answers = await asyncio.gather(*[client.post(CHAT, json=chat()) for _ in range(30)])
        for answer in answers:
            if answer.status_code == 429:
                return answer
