"""What the owner sees of each provider: its circuit, its quota, and what is stopped."""

import datetime as dt

import httpx2
import pytest
from sqlalchemy import insert

from gateway.accounts.principals import Role
from gateway.circuit_breaker.breaker import CircuitBreaker
from gateway.db.tables import stops, utc_now
from gateway.policy import Policy
from gateway.providers.base import Quota
from tests.support import POLICY, Service, error_of

PROVIDERS = "/v1/admin/providers"
ECHO, EMBEDDING = "offline/echo", "offline/embedding"


@pytest.fixture
async def client(service: Service) -> httpx2.AsyncClient:
    """An auditor's."""
    return service.client(await service.create_user(role=Role.AUDITOR))


async def _states(client: httpx2.AsyncClient) -> dict[str, str]:
    return {each["model"]: each["state"] for each in (await client.get(PROVIDERS)).json()}


async def _stop(service: Service, target: str, kind: str = "stopped") -> None:
    row = {"target": target, "kind": kind, "reason": "why", "running": False, "at": utc_now()}
    await service.write(insert(stops).values(**row))


async def test_every_model_is_listed(client: httpx2.AsyncClient) -> None:
    listed = (await client.get(PROVIDERS)).json()
    assert [each["model"] for each in listed] == list(POLICY)
    (echo,) = [each for each in listed if each["model"] == ECHO]
    assert echo == {
        "provider": "offline",
        "model": ECHO,
        "state": "closed",
        "until": None,
        "remaining_requests": None,
        "remaining_tokens": None,
    }


async def test_a_circuit_that_is_open_tells_until_when_and_what_is_left(
    service: Service, client: httpx2.AsyncClient
) -> None:
    circuit_breaker: CircuitBreaker = service.engine.circuit_breaker
    policy: Policy = service.engine.policy
    await circuit_breaker.record_quota(policy.model(ECHO), Quota(0, 500, 40.0))
    (echo,) = [each for each in (await client.get(PROVIDERS)).json() if each["model"] == ECHO]
    assert (echo["state"], echo["remaining_requests"], echo["remaining_tokens"]) == ("open", 0, 500)
    left = dt.datetime.fromisoformat(echo["until"]) - utc_now()
    assert dt.timedelta(0) < left <= dt.timedelta(seconds=40)
    assert (await _states(client))[EMBEDDING] == "closed"


async def test_what_is_stopped_is_told_for_a_model_a_provider_and_the_service(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await _stop(service, f"model:{ECHO}")
    states = await _states(client)
    assert {model for model, state in states.items() if state == "stopped"} == {ECHO}
    await _stop(service, "provider:offline")
    states = await _states(client)
    assert {model for model, state in states.items() if state == "stopped"} == {ECHO, EMBEDDING}
    await _stop(service, "service")
    assert set((await _states(client)).values()) == {"stopped"}


async def test_a_quarantine_is_told_also_when_the_model_is_stopped(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await _stop(service, f"model:{ECHO}", "quarantined")
    await _stop(service, "service")
    states = await _states(client)
    assert (states[ECHO], states[EMBEDDING]) == ("quarantined", "stopped")


async def test_it_is_not_for_users(service: Service) -> None:
    client = service.client(await service.create_user())
    assert error_of(await client.get(PROVIDERS)) == (403, "forbidden", None)
