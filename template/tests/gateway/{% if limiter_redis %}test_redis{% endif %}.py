"""Redis shared, restarted, dead and hanging: access fails closed, quickly, and recovers."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from redis import Redis
from redis.asyncio.client import Pipeline
from redis.crc import key_slot

from app import wiring
from app.main import create_app, lifespan
from app.settings import Settings
from gateway.errors import LimiterUnavailable, StartError
from gateway.rate_limits import redis as limiters
from gateway.rate_limits.base import AcquireRequest, Bucket, Slot
from gateway.rate_limits.redis import RedisLimiter, open_at
from tests.addresses import BROKEN, CANARY
from tests.backends import redis
from tests.fixtures.service import Run, Start
from tests.ports import kept_port
from tests.support import (
    PROMISED_SECONDS,
    Service,
    busy,
    chat,
    error_of,
    free_time,
    leave_with_the_answer,
    unique,
)

CHAT = "/v1/chat/completions"
# Whatever this machine lacks is accepted.
ACCEPTED = [name for name in Settings.model_fields if name.startswith("accept_")]
PRODUCTION: dict[str, Any] = {"environment": "production", **dict.fromkeys(ACCEPTED, True)}


def a_request(capacity: int = 5) -> AcquireRequest:
    return AcquireRequest((Bucket("requests", unique("key"), capacity),))


@contextmanager
def frozen(process_id: int) -> Iterator[None]:
    """Stop a process with SIGSTOP, and continue it at the end."""
    os.kill(process_id, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process_id, signal.SIGCONT)


async def test_keys_expire(redis_url: str) -> None:
    key = unique("key")
    limiter = RedisLimiter(redis_url)
    for _ in range(3):
        await limiter.acquire(AcquireRequest((Bucket("requests", key, 6),)))
    await limiter.close()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (kept,) = client.keys(f"*{key}*")
        assert 29_000 <= client.pttl(kept) <= 30_100


async def test_an_abandoned_slot_expires(redis_url: str) -> None:
    key = unique("key")
    limiter = RedisLimiter(redis_url)
    for holder, seconds in (("one", 30), ("other", 20)):
        await limiter.acquire(AcquireRequest((), (Slot(key, 2, holder, seconds),)))
    await limiter.close()
    with Redis.from_url(redis_url, decode_responses=True) as client:
        (kept,) = client.keys(f"*{key}*")
        assert 29_000 <= client.pttl(kept) <= 30_000


async def test_all_of_a_moments_requests_share_one_round_trip(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    execute = Pipeline.execute

    async def count(self: Pipeline, raise_on_error: bool = True) -> list[Any]:
        sent.append(len(self))
        return await execute(self, raise_on_error)

    monkeypatch.setattr(Pipeline, "execute", count)
    limiter = RedisLimiter(redis_url)
    await limiter.acquire(a_request())
    sent.clear()
    slots = (Slot(unique("key"), 9, "holder", 30), Slot(unique("key"), 9, "holder", 30))
    several = AcquireRequest(a_request().buckets + a_request().buckets, slots)
    work = [limiter.acquire(several) for _ in range(20)]
    await asyncio.gather(*work, *[limiter.release(several) for _ in range(5)])
    assert sent == [25]
    await limiter.close()


async def test_the_keys_of_a_request_stay_together_in_a_cluster(redis_url: str) -> None:
    keys = [unique("key") for _ in range(5)]
    limiter = RedisLimiter(redis_url)
    one, two, three, four, memory = keys
    buckets = Bucket("requests", one, 5), Bucket("tokens", two, 5)
    await limiter.acquire(
        AcquireRequest(buckets, (Slot(three, 5, "me", 30), Slot(four, 5, "me", 30)))
    )
    await limiter.set(memory, "value", 30)
    await limiter.close()
    with Redis.from_url(redis_url) as client:
        kept = [name for key in keys for name in client.keys(f"*{key}*")]
    assert len(kept) == 5
    assert len({key_slot(name) for name in kept}) == 1


async def test_units_of_a_cancelled_caller_are_given_back(redis_url: str) -> None:
    slot = Slot(unique("key"), 1, "leaving", 30)
    limiter = RedisLimiter(redis_url)
    await limiter.acquire(a_request())
    leaving = asyncio.create_task(limiter.acquire(AcquireRequest(a_request().buckets, (slot,))))
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    await limiter.close()
    limiter = RedisLimiter(redis_url)
    assert (await limiter.acquire(AcquireRequest((), (slot._replace(holder="next"),)))).admitted
    await limiter.close()


async def test_units_of_a_caller_that_leaves_with_the_answer_are_given_back(redis_url: str) -> None:
    key = unique("key")
    wanted = AcquireRequest((Bucket("tokens", key, 5, 5),), (Slot(key, 1, "leaving", 30),))
    limiter = RedisLimiter(redis_url)
    await leave_with_the_answer(limiter.acquire(wanted))
    following = wanted._replace(slots=(wanted.slots[0]._replace(holder="next"),))
    assert (await limiter.acquire(following)).admitted
    await limiter.close()


async def test_a_restarted_redis_is_used_at_once(redis_url: str) -> None:
    """A restart loses its scripts, which must not refuse requests."""
    limiter = RedisLimiter(redis_url)
    await limiter.acquire(a_request())
    with Redis.from_url(redis_url) as client:
        client.script_flush()
        client.client_kill_filter(_type="normal", skipme=True)
    answers = await asyncio.gather(*[limiter.acquire(a_request()) for _ in range(10)])
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


@pytest.mark.parametrize("turns", [1, 3, 5])
@pytest.mark.parametrize("is_connected", [True, False])
async def test_an_answer_that_a_busy_process_has_not_read_yet_is_no_outage(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, is_connected: bool, turns: int
) -> None:
    """Other work repeatedly blocks the loop for longer than the time-out."""
    monkeypatch.setattr(limiters, "PATIENCE_SECONDS", 0.03)
    limiter = RedisLimiter(redis_url)
    if is_connected:
        await limiter.acquire(a_request())
    async with busy(0.06, turns):
        assert (await limiter.acquire(a_request())).admitted
        await limiter.set("key", "value", 60)
        (kept,) = await limiter.get(["key"])
        assert kept is not None
        assert kept.value == "value"
        await limiter.delete("key")
        await limiter.check()
    await limiter.close()


async def test_a_wrong_value_does_not_stop_others(redis_url: str) -> None:
    key = unique("key")
    with Redis.from_url(redis_url) as client:
        client.rpush(f"{limiters.TOGETHER}:limit:{key}", "a list, and no level")
    limiter = RedisLimiter(redis_url)
    wrong = limiter.acquire(AcquireRequest((Bucket("requests", key, 5),)))
    right = limiter.acquire(a_request())
    failed, passed = await asyncio.gather(wrong, right, return_exceptions=True)
    assert isinstance(failed, LimiterUnavailable)
    assert not isinstance(passed, BaseException)
    assert passed.admitted
    await limiter.close()


async def test_a_demoted_redis_is_left(service: Service, redis_url: str) -> None:
    """A read-only server: after a failover, the address leads to another server."""
    client = service.client(await service.create_user())
    assert (await client.post(CHAT, json=chat())).status_code == 200
    with Redis.from_url(redis_url) as connection:
        connection.replicaof("127.0.0.1", "1")
        try:
            ours = _clients(connection)
            assert (await client.get("/readyz")).status_code == 503
            answer = await client.post(CHAT, json=chat())
            assert error_of(answer) == (503, "limiter_unavailable", None)
            assert "ReadOnlyError" in service.log
            assert not ours & _clients(connection)
        finally:
            connection.replicaof("NO", "ONE")
    assert (await client.post(CHAT, json=chat())).status_code == 200
    assert (await client.get("/readyz")).status_code == 200


@pytest.fixture
def evicting(redis_url: str) -> Iterator[None]:
    """A Redis that drops keys when its memory is full."""
    with Redis.from_url(redis_url) as connection:
        connection.config_set("maxmemory-policy", "volatile-lru")
        try:
            yield
        finally:
            connection.config_set("maxmemory-policy", "noeviction")


@pytest.mark.usefixtures("evicting")
async def test_a_redis_that_evicts_stops_the_start_in_production(
    start: Start, settings: dict[str, Any]
) -> None:
    app = create_app(Settings(_env_file=None, **settings | PRODUCTION))
    with pytest.raises(StartError, match="maxmemory-policy volatile-lru"):
        async with lifespan(app):
            pytest.fail("it started")
    service = await start()
    assert (await service.client().get("/readyz")).status_code == 200


@pytest.mark.usefixtures("evicting")
async def test_doctor_reports_a_redis_that_evicts(run: Run) -> None:
    result = await run("doctor")
    assert result.exit_code == 0
    assert "! limits are kept: Redis has the maxmemory-policy volatile-lru" in result.stdout
    assert "✗ limits are kept: " in (await run("doctor", "--production")).stdout


async def test_a_redis_that_begins_to_evict_is_not_ready(start: Start, redis_url: str) -> None:
    service = await start(**PRODUCTION)
    assert (await service.client().get("/readyz")).status_code == 200
    with Redis.from_url(redis_url) as connection:
        connection.config_set("maxmemory-policy", "allkeys-lru")
        try:
            assert (await service.client().get("/readyz")).status_code == 503
        finally:
            connection.config_set("maxmemory-policy", "noeviction")
    assert "Not ready: Redis has the maxmemory-policy allkeys-lru" in service.log


async def test_a_redis_that_does_not_answer_is_no_reason_not_to_start(start: Start) -> None:
    with kept_port() as port:
        service = await start(**PRODUCTION, redis_url=f"redis://127.0.0.1:{port}")
    assert (await service.client().get("/readyz")).status_code == 503


async def test_a_policy_that_may_not_be_read_is_unknown(redis_url: str) -> None:
    with Redis.from_url(redis_url) as connection:
        connection.acl_setuser("blind", enabled=True, nopass=True, commands=["+ping"], keys=["*"])
        limiter = RedisLimiter(f"{redis_url}?username=blind&password=any")
        try:
            assert await limiter.weakness() is None
        finally:
            await limiter.close()
            connection.acl_deluser("blind")


async def test_a_full_redis_keeps_no_slot(redis_url: str) -> None:
    wanted = AcquireRequest(a_request().buckets, (Slot(unique("key"), 1, "holder", 30),))
    limiter = RedisLimiter(redis_url)
    with Redis.from_url(redis_url) as connection:
        connection.config_set("maxmemory", "1")
        try:
            for _ in range(2):
                assert (await limiter.acquire(wanted)).admitted
                await limiter.release(wanted)
        finally:
            connection.config_set("maxmemory", "0")
    await limiter.close()


@pytest.mark.parametrize(
    "url",
    [
        *(text.replace("scheme", "redis") for text in ["", "http://localhost", *BROKEN]),
        *("redis://host/one", "redis://host?db=one", "unix://run/redis.sock", "unix://"),
        "rediss://host?ssl_cert_reqs=perhaps",
    ],
)
async def test_a_wrong_address_stops_the_start(url: str, database_url: str) -> None:
    settings = Settings(_env_file=None, redis_url=url, database_url=database_url)
    database = wiring.database.open_database(settings.gateway)
    with pytest.raises(StartError, match=r"^REDIS_URL: ") as error:
        wiring.limiter.open_limiter(settings.gateway, database)
    assert CANARY not in str(error.value)
    await database.close()


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://host?nonsense=1", "nonsense"),
        ("redis://host?socket_timeout=60", "socket_timeout"),  # an answer takes a second at most
        ("redis://host?ssl_cert_reqs=none", "ssl_cert_reqs"),
    ],
)
def test_an_unknown_option_is_named(url: str, name: str) -> None:
    with pytest.raises(StartError, match=f"unknown option: {name};"):
        open_at(url)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://:p/a#s?s@host:1/2", {"password": "p/a#s?s", "host": "host", "port": 1, "db": 2}),
        ("rediss://jane:pw@[::1]?ssl_cert_reqs=none", {"username": "jane", "host": "::1"}),
        ("unix:///run/redis.sock?db=3", {"path": "/run/redis.sock", "db": 3}),
    ],
)
def test_a_right_address(url: str, expected: dict[str, Any]) -> None:
    chosen = open_at(url)._redis.connection_pool.connection_kwargs
    assert {name: chosen[name] for name in expected} == expected


async def _service_on(start: Start, url: str) -> tuple[Service, httpx2.AsyncClient]:
    service = await start(redis_url=url)
    return service, service.client(await service.create_user())


async def _assert_unavailable(service: Service, client: httpx2.AsyncClient) -> None:
    """All requests fail within a second, and nothing is recorded."""
    before = await service.rows_count()
    requests: list[Any] = [client.post(CHAT, json=chat()) for _ in range(40)]
    async with free_time() as passed:
        answers = await asyncio.gather(*requests)
    assert passed() < PROMISED_SECONDS
    assert {error_of(answer) for answer in answers} == {(503, "limiter_unavailable", None)}
    assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200
    assert await service.rows_count() == before


def _clients(connection: Redis) -> set[str]:
    """The connections of other clients."""
    return {client["id"] for client in connection.client_list()} - {str(connection.client_id())}
