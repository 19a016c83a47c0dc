"""Redis shared, restarted, dead and frozen: access fails closed, soon, and recovers."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from redis import Redis

from app import wiring
from app.errors import LimiterUnavailable, StartError
from app.settings import Settings
from app.state.base import Bucket, Demand
from app.state.redis import RedisLimiter
from tests.backends import redis
from tests.fixtures.service import Start
from tests.support import Service, chat, error_of, unique

CHAT = "/v1/chat/completions"


def demand(capacity: int = 5) -> Demand:
    return Demand((Bucket("requests", unique("key"), capacity),))


@contextmanager
def frozen(process_id: int) -> Iterator[None]:
    """Stop a process, and let it go on at the end."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


async def test_what_is_kept_expires(redis_url: str) -> None:
    key = unique("key")
    limiter = RedisLimiter(redis_url)
    for _ in range(3):
        await limiter.admit(Demand((Bucket("requests", key, 6),)))
    await limiter.close()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (kept,) = client.keys(f"*{key}*")
        assert 29_000 <= client.pttl(kept) <= 30_100


async def test_a_restarted_redis_is_used_at_once(redis_url: str) -> None:
    """Its scripts are gone then, which is no reason to refuse anybody."""
    limiter = RedisLimiter(redis_url)
    await limiter.admit(demand())
    with Redis.from_url(redis_url) as client:
        client.script_flush()
        client.client_kill_filter(_type="normal", skipme=True)
    answers = await asyncio.gather(*[limiter.admit(demand()) for _ in range(10)])
    assert all(answer.admitted for answer in answers)
    await limiter.close()


async def test_a_dead_redis_lets_nothing_pass(start: Start) -> None:
    with redis.server() as url:
        service, client = await _service_on(start, url)
        assert (await client.post(CHAT, json=chat())).status_code == 200
        with Redis.from_url(url) as connection:
            os.kill(connection.info("server")["process_id"], signal.SIGKILL)
        await _assert_unavailable(service, client)


async def test_a_frozen_redis_lets_nothing_pass_and_recovers(start: Start) -> None:
    with redis.server() as url:
        service, client = await _service_on(start, url)
        assert (await client.post(CHAT, json=chat())).status_code == 200
        with Redis.from_url(url) as connection:
            process_id = connection.info("server")["process_id"]
        with frozen(process_id):
            await _assert_unavailable(service, client)
        assert (await client.post(CHAT, json=chat())).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_a_wrong_value_does_not_stop_others(redis_url: str) -> None:
    key = unique("key")
    with Redis.from_url(redis_url) as client:
        client.rpush(f"limit:{key}", "a list, and no level")
    limiter = RedisLimiter(redis_url)
    wrong = limiter.admit(Demand((Bucket("requests", key, 5),)))
    right = limiter.admit(demand())
    failed, passed = await asyncio.gather(wrong, right, return_exceptions=True)
    assert isinstance(failed, LimiterUnavailable)
    assert not isinstance(passed, BaseException)
    assert passed.admitted
    await limiter.close()


@pytest.mark.parametrize("url", ["", "localhost:6379", "http://localhost", "redis://host:port/"])
def test_a_wrong_address_stops_the_start(url: str) -> None:
    with pytest.raises(StartError, match="REDIS_URL"):
        wiring.limiter.open_limiter(Settings(_env_file=None, redis_url=url))


async def _service_on(start: Start, url: str) -> tuple[Service, httpx2.AsyncClient]:
    service = await start(redis_url=url)
    return service, service.client(await service.create_user())


async def _assert_unavailable(service: Service, client: httpx2.AsyncClient) -> None:
    """Everything is told within a second, many at once included, and nothing is recorded."""
    loop, before = asyncio.get_running_loop(), await service.rows_count()
    began = loop.time()
    requests: list[Any] = [client.post(CHAT, json=chat()) for _ in range(40)]
    answers = await asyncio.gather(*requests)
    assert loop.time() - began < 1.5
    assert {error_of(answer) for answer in answers} == {(503, "limiter_unavailable", None)}
    assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200
    assert await service.rows_count() == before
