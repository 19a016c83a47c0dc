"""Health and readiness: what a host asks, and no more than it needs to know."""

import asyncio
from dataclasses import replace

import pytest

from app import wiring
from app.settings import Settings
from gateway import readiness
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.errors import LimiterUnavailable
from gateway.ledger.sweeper import Sweeper
from gateway.policy import Policy
from gateway.providers.base import Quota
from gateway.rate_limits.base import AcquireRequest, Admission
from tests.fixtures.service import Start
from tests.support import PROMISED_SECONDS, Service, eventually, free_time

READY = (200, "ready")
NOT_READY = (503, "not ready")
PATHS = ["/readyz", "/healthz"]


class DeadLimiter:
    """A limiter whose backend is gone, after `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def check(self) -> None:
        await asyncio.sleep(self._seconds)
        raise LimiterUnavailable("It is gone.")

    async def acquire(self, request: AcquireRequest) -> Admission:
        raise NotImplementedError

    async def weakness(self) -> None:
        """It has none."""

    async def close(self) -> None:
        """Nothing is open."""


async def _ask(service: Service, path: str) -> tuple[int, str]:
    response = await service.client().get(path)
    return response.status_code, response.json()["status"]


async def _use_database(service: Service, url: str) -> None:
    database = wiring.database.open_database(Settings(_env_file=None, database_url=url).gateway)
    service.stack.push_async_callback(database.close)
    service.engine.database = database


@pytest.mark.parametrize("path", PATHS)
async def test_ready(service: Service, path: str) -> None:
    assert await _ask(service, path) == READY


@pytest.mark.parametrize("path", PATHS)
async def test_the_version_of_the_policy_files_is_shown(service: Service, path: str) -> None:
    """Also while the service is not ready."""
    version = service.engine.policy.version
    assert (await service.client().get(path)).json()["policy_version"] == version
    vars(service.engine)["limiter"] = DeadLimiter(0)
    answer = await service.client().get(path)
    assert answer.json() == {"status": "not ready", "policy_version": version}


@pytest.mark.parametrize("path", PATHS)
async def test_not_ready_without_the_database(
    service: Service, path: str, dead_database_url: str
) -> None:
    await _use_database(service, dead_database_url)
    assert await _ask(service, path) == NOT_READY


@pytest.mark.parametrize("path", PATHS)
async def test_not_ready_before_the_migrations(
    service: Service, path: str, empty_database_url: str
) -> None:
    await _use_database(service, empty_database_url)
    assert await _ask(service, path) == NOT_READY


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("seconds", [0, 60], ids=["gone", "frozen"])
async def test_not_ready_without_the_limiter(service: Service, path: str, seconds: float) -> None:
    vars(service.engine)["limiter"] = DeadLimiter(seconds)
    async with free_time() as passed:
        assert await _ask(service, path) == NOT_READY
    # Hosts give up after seconds: the answer must come before.
    assert passed() < PROMISED_SECONDS


async def test_not_ready_while_every_provider_is_left_alone(service: Service) -> None:
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    policy: Policy = service.engine.policy
    first, *others = policy.models.values()
    for model in others:
        await circuit_breaker.record_quota(model, Quota(None, None, 60))
    assert await _ask(service, "/readyz") == READY
    await circuit_breaker.record_quota(first, Quota(None, None, 60))
    assert await _ask(service, "/readyz") == NOT_READY
    assert await _ask(service, "/livez") == (200, "ok")


async def test_not_ready_once_a_loop_in_the_background_crashed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def crash(_: Sweeper) -> None:
        raise ArithmeticError("the reason")

    monkeypatch.setattr(Sweeper, "run", crash)
    service = await start()

    async def is_logged() -> bool:
        return "A background task crashed" in service.log

    await eventually(is_logged)
    assert await _ask(service, "/readyz") == NOT_READY
    assert await _ask(service, "/livez") == (200, "ok")


async def test_in_production_the_offline_provider_makes_nothing_ready(service: Service) -> None:
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    policy: Policy = service.engine.policy
    others = [model for model in policy.models.values() if model.provider != "offline"]
    for model in others:
        await circuit_breaker.record_quota(model, Quota(None, None, 60))
    assert await _ask(service, "/readyz") == READY
    service.engine.config = replace(service.engine.config, production=True)
    assert await _ask(service, "/readyz") == (NOT_READY if others else READY)


async def test_alive_whatever_is_gone(service: Service, dead_database_url: str) -> None:
    await _use_database(service, dead_database_url)
    vars(service.engine)["limiter"] = DeadLimiter(0)
    assert await _ask(service, "/livez") == (200, "ok")


@pytest.mark.parametrize("path", ["/livez", *PATHS, "/"])
async def test_a_monitor_may_ask_without_the_body(service: Service, path: str) -> None:
    whole = await service.client().get(path)
    response = await service.client().head(path)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["Content-Type"] == whole.headers["Content-Type"]


async def test_readiness_comes_back_by_itself(service: Service) -> None:
    working = service.engine.limiter
    vars(service.engine)["limiter"] = DeadLimiter(0)
    assert await _ask(service, "/readyz") == NOT_READY
    service.engine.limiter = working
    assert await _ask(service, "/readyz") == READY


async def test_turning_unready_and_back_is_logged_once_with_the_reason(service: Service) -> None:
    working = service.engine.limiter
    vars(service.engine)["limiter"] = DeadLimiter(0)
    for _ in range(2):
        assert await _ask(service, "/readyz") == NOT_READY
    service.engine.limiter = working
    for _ in range(2):
        assert await _ask(service, "/readyz") == READY
    changes = [event for event in service.events if "eady" in event["message"][:9]]
    assert [(event["level"], event["message"]) for event in changes] == [
        ("warning", "Not ready: limiter_unavailable: -"),
        ("info", "Ready again"),
    ]


@pytest.mark.parametrize(
    ("part", "reason"),
    [("limiter", "no answer in time from the limiter"), ("database", "database_unavailable: ")],
)
async def test_the_reason_names_the_part_at_fault(
    service: Service, dead_database_url: str, part: str, reason: str
) -> None:
    if part == "limiter":
        vars(service.engine)["limiter"] = DeadLimiter(60)
    else:
        await _use_database(service, dead_database_url)
    assert await _ask(service, "/readyz") == NOT_READY
    assert f"Not ready: {reason}" in service.log


async def test_many_who_ask_share_a_check(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes, and anybody may ask."""
    checks: list[None] = []
    database = service.engine.database
    check = database.check

    async def count() -> None:
        checks.append(None)
        await check()

    monkeypatch.setattr(database, "check", count)
    monkeypatch.setattr(readiness, "KEPT_SECONDS", 60.0)
    answers = await asyncio.gather(*[_ask(service, "/readyz") for _ in range(20)])
    assert answers == [READY] * 20
    assert await _ask(service, "/readyz") == READY
    assert len(checks) == 1


async def test_checks_take_nothing_and_are_logged_once(service: Service) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        await _ask(service, path)
    routes = [event["route"] for event in service.access_events()]
    assert routes == ["/livez", "/readyz", "/healthz"]
    assert await service.rows_count() == 0
