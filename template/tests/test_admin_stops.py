"""The emergency stop: who may pull it, what it says, and that it is on record."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import insert

from gateway.accounts.principals import Role
from gateway.db.tables import stops, utc_now
from tests.fixtures.service import Run
from tests.support import Service, User, error_of

STOP, START = "/v1/admin/stop", "/v1/admin/start"
PROVIDER, MODEL = "provider:offline", "model:offline/echo"


@pytest.fixture
async def admin(service: Service) -> User:
    return await service.create_user(role=Role.ADMIN)


@pytest.fixture
async def client(service: Service, admin: User) -> httpx2.AsyncClient:
    return service.client(admin)


async def _quarantine(service: Service) -> None:
    """As the gateway does when a call exceeded its maximum."""
    row = {"target": MODEL, "kind": "quarantined", "reason": "it cost more than its bound"}
    await service.write(insert(stops).values(**row, running=False, at=utc_now()))


async def _stopped(service: Service) -> set[tuple[str, str]]:
    return {(row.target, row.kind) for row in await service.database.fetch(stops.select())}


async def test_a_stop_says_what_is_stopped_and_who_did_it(
    service: Service, client: httpx2.AsyncClient, admin: User
) -> None:
    response = await client.post(STOP, json={"reason": " the bill explodes ", "running": True})
    (stop,) = response.json()["data"]
    assert stop.pop("at").endswith("Z")
    assert stop == {
        "target": "service",
        "kind": "stopped",
        "reason": "the bill explodes",
        "running": True,
        "actor_id": admin.id,
    }
    assert await _stopped(service) == {("service", "stopped")}
    assert (await client.post(START)).json() == {"data": []}
    assert await _stopped(service) == set()


async def test_a_provider_or_a_model_is_stopped_alone(
    service: Service, client: httpx2.AsyncClient
) -> None:
    for target in (PROVIDER, MODEL):
        response = await client.post(STOP, json={"reason": "odd answers", "target": target})
        assert response.status_code == 200
    assert await _stopped(service) == {(PROVIDER, "stopped"), (MODEL, "stopped")}
    left = (await client.post(START, json={"target": PROVIDER})).json()["data"]
    assert [stop["target"] for stop in left] == [MODEL]


async def test_both_are_audited(service: Service, client: httpx2.AsyncClient, admin: User) -> None:
    stopped = await client.post(STOP, json={"reason": "first", "target": MODEL})
    again = await client.post(STOP, json={"reason": "second", "target": MODEL, "running": True})
    started = await client.post(START, json={"target": MODEL})
    again_started = await client.post(START, json={"target": MODEL})
    first = {"stopped": {"reason": "first", "running": False}}
    second = {"stopped": {"reason": "second", "running": True}}
    rows = await service.changes()
    assert [(row.action, row.before, row.after) for row in rows] == [
        ("stop", None, first),
        ("stop", first, second),
        ("start", second, None),
        # Nothing was stopped; a cooldown is lifted all the same.
        ("start", None, None),
    ]
    assert {(row.actor_id, row.target) for row in rows} == {(admin.id, MODEL)}
    answers = (stopped, again, started, again_started)
    assert [row.request_id for row in rows] == [each.headers["X-Request-ID"] for each in answers]


async def test_starting_a_model_acknowledges_its_quarantine(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await _quarantine(service)
    await client.post(STOP, json={"reason": "look at it first", "target": MODEL})
    assert await _stopped(service) == {(MODEL, "quarantined"), (MODEL, "stopped")}
    assert (await client.post(START, json={"target": MODEL})).json() == {"data": []}
    entry = (await service.changes())[-1]
    assert set(entry.before) == {"quarantined", "stopped"}


async def test_starting_the_service_leaves_a_quarantine(
    service: Service, client: httpx2.AsyncClient
) -> None:
    await _quarantine(service)
    left = (await client.post(START)).json()["data"]
    assert [(stop["target"], stop["kind"]) for stop in left] == [(MODEL, "quarantined")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "reason"),
        ({"reason": " "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"reason": "nothing\x00"}, "reason"),
        ({"reason": "why", "target": "model:none"}, "target"),
        ({"reason": "why", "target": "offline/echo"}, "target"),
        ({"reason": "why", "target": "\x00"}, "target"),
    ],
)
async def test_a_stop_that_would_stop_nothing_is_refused(
    service: Service, client: httpx2.AsyncClient, body: dict[str, Any], param: str
) -> None:
    assert error_of(await client.post(STOP, json=body)) == (422, "invalid_request", param)
    assert await service.changes() == []


async def test_a_start_of_nothing_known_is_refused(client: httpx2.AsyncClient) -> None:
    response = await client.post(START, json={"target": "model:none"})
    assert error_of(response) == (422, "invalid_request", "target")


@pytest.mark.parametrize("role", [Role.USER, Role.AUDITOR])
@pytest.mark.parametrize("path", [STOP, START])
async def test_only_administrators_may(service: Service, role: Role, path: str) -> None:
    client = service.client(await service.create_user(role=role))
    response = await client.post(path, json={"reason": "why"} if path == STOP else {})
    assert error_of(response) == (403, "forbidden", None)
    assert await _stopped(service) == set()


async def test_the_command_line_stops_and_starts(service: Service, run: Run) -> None:
    stopped = await run("stop", "--reason", "the bill explodes", "--running", "--json")
    assert stopped.exit_code == 0
    (stop,) = json.loads(stopped.stdout)
    assert (stop["target"], stop["reason"], stop["running"]) == (
        "service",
        "the bill explodes",
        True,
    )
    model = await run("stop", MODEL, "--reason", "odd answers")
    assert model.stdout == (
        f"{MODEL} is stopped: odd answers\nservice is stopped: the bill explodes\n"
    )
    assert (await run("start")).stdout == f"{MODEL} is stopped: odd answers\n"
    assert (await run("start", MODEL)).stdout == "Nothing is stopped.\n"
    rows = await service.changes()
    assert [row.action for row in rows] == ["stop", "stop", "start", "start"]
    assert {(row.actor_id, row.request_id) for row in rows} == {(None, None)}


async def test_the_command_line_tells_what_can_be_stopped(run: Run) -> None:
    refused = await run("stop", "modell:offline/echo", "--reason", "odd answers")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert all(target in refused.stderr for target in ("service", PROVIDER, MODEL))
    assert (await run("stop")).exit_code == 2


async def test_an_emergency_does_not_wait_for_the_policy_files(
    service: Service, run: Run, policy_dir: Path
) -> None:
    (policy_dir / "models.toml").write_text("[models", encoding="utf-8")
    assert (await run("stop", "--reason", "the bill explodes")).exit_code == 0
    assert await _stopped(service) == {("service", "stopped")}
    assert (await run("start")).stdout == "Nothing is stopped.\n"
    assert (await run("stop", MODEL, "--reason", "odd answers")).exit_code == 1
