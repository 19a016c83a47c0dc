"""Alerts: each is logged once over all replicas, and posted until the webhook accepts it."""

import asyncio
import hashlib
import hmac
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sqlalchemy import Connection, Executable, Insert, insert, select, update

from app import wiring
from app.settings import Settings
from gateway.alerts import webhook
from gateway.alerts.alerts import Alerts, raise_alert
from gateway.alerts.webhook import Webhook
from gateway.db.engine import Database
from gateway.db.tables import alerts, utc_now
from gateway.errors import DatabaseUnavailable
from gateway.policy import Policy, load
from tests.fixtures.service import Run, Start
from tests.support import CHECKED, eventually, unique

KEY = "0123456789abcdef"
DETAILS = {"account": "service", "percent": 80, "spent_nano_usd": 8, "cap_nano_usd": 10}
REPLICAS = 4


@dataclass
class Receiver:
    """The owner's webhook: sends scripted answers, then 204, and records requests."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Receiver"]:
        application = web.Application()
        application.router.add_post("/{path:.*}", self._receive)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/alerts"
        yield self
        await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, await request.read()))
        status = self.statuses.pop(0) if self.statuses else 204
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    @property
    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for _, body in self.requests]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver().listening() as listening:
        yield listening


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def policy(policy_dir: Path) -> Policy:
    return load(policy_dir)


@pytest.fixture
async def databases(settings: dict[str, Any]) -> AsyncIterator[list[Database]]:
    """One for each replica."""
    async with AsyncExitStack() as stack:
        opened: list[Database] = []
        for _ in range(REPLICAS):
            database = wiring.database.open_database(Settings(_env_file=None, **settings).gateway)
            stack.push_async_callback(database.close)
            opened.append(database)
        yield opened


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "PAUSE_SECONDS", 0.001)


def _row(alert_id: str = "budget:service:2026-11-24:80", kind: str = "budget") -> Insert:
    return insert(alerts).values(id=alert_id, kind=kind, details=DETAILS, at=utc_now())


async def _write(database: Database, *statements: Executable) -> None:
    def work(connection: Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    await database.transact(work)


async def _alert(database: Database) -> Any:
    (row,) = await database.fetch(select(alerts))
    return row


def _told(caplog: pytest.LogCaptureFixture) -> list[Any]:
    """The alerts in the log."""
    records = [record for record in caplog.records if record.message == "Alert"]
    assert {record.levelno for record in records} <= {logging.WARNING}
    return [vars(record)["fields"]["alert"] for record in records]


async def test_an_alert_is_a_log_line_and_a_count(start: Start) -> None:
    service = await start(metrics_token=unique("metrics"))
    before = await service.metric("alerts_total", kind="budget")
    await service.write(_row())

    async def sent() -> list[dict[str, Any]]:
        return [event for event in service.events if event["message"] == "Alert"]

    (event,) = await eventually(sent)
    assert (event["level"], event["kind"]) == ("warning", "budget")
    assert event["alert"] == "budget:service:2026-11-24:80"
    assert {name: event[name] for name in DETAILS} == DETAILS
    assert await service.metric("alerts_total", kind="budget") == before + 1

    async def is_notified() -> bool:
        row = await _alert(service.database)
        return row.told_at is not None and row.sent_at is not None

    assert await eventually(is_notified)


async def test_an_alert_is_logged_once_over_all_replicas(
    databases: list[Database], policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    ids = [f"budget:user:{number}:2026-11:100" for number in range(20)]
    await _write(databases[0], *map(_row, ids))
    replicas = [Alerts(database, policy, None) for database in databases]
    await asyncio.gather(*(replica.notify() for replica in replicas for _ in range(3)))
    assert sorted(_told(caplog)) == sorted(ids)


async def test_a_posted_alert_is_signed(
    databases: list[Database], policy: Policy, http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    await _write(databases[0], _row())
    replica = Alerts(databases[0], policy, Webhook(http, receiver.url, KEY))
    await replica.notify()
    assert (await _alert(databases[0])).sent_at is None
    await replica.post()
    ((headers, body),) = receiver.requests
    shown = json.loads(body)
    row = await _alert(databases[0])
    assert shown.pop("at").endswith("Z")
    assert shown == {"id": row.id, "kind": "budget", "details": DETAILS}
    assert headers["x-signature"] == f"sha256={_hmac(KEY, headers['x-timestamp'], body)}"
    assert headers["content-type"] == "application/json"
    assert row.sent_at is not None
    await replica.post()
    assert len(receiver.requests) == 1


async def test_all_replicas_together_post_once(
    databases: list[Database], policy: Policy, http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    ids = [f"bound:att_{number}" for number in range(15)]
    await _write(databases[0], *(_row(each, "bound") for each in ids))
    replicas = [
        Alerts(database, policy, Webhook(http, receiver.url, KEY)) for database in databases
    ]
    await asyncio.gather(*(replica.post() for replica in replicas))
    assert sorted(receiver.ids) == sorted(ids)


async def test_a_webhook_that_stumbles_is_asked_again(
    databases: list[Database], policy: Policy, http: aiohttp.ClientSession, receiver: Receiver
) -> None:
    receiver.statuses = [500, 302]
    await _write(databases[0], _row())
    await Alerts(databases[0], policy, Webhook(http, receiver.url, KEY)).post()
    assert len(receiver.requests) == 3  # A redirect is not followed.
    assert (await _alert(databases[0])).sent_at is not None


async def test_a_webhook_that_fails_loses_no_alert_and_repeats_no_log(
    databases: list[Database],
    policy: Policy,
    http: aiohttp.ClientSession,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.statuses = [503] * webhook.TRIES
    await _write(databases[0], _row())
    replicas = [Alerts(each, policy, Webhook(http, receiver.url, KEY)) for each in databases]
    for replica in replicas:
        await replica.notify()
        await replica.post()  # The others leave it alone for a while.
    assert len(receiver.requests) == webhook.TRIES
    (failed,) = [r for r in caplog.records if "webhook" in r.message]
    assert vars(failed)["fields"]["problem"] == "status 503"
    await _write(databases[0], update(alerts).values(next_try_at=utc_now()))
    await replicas[1].notify()
    await replicas[1].post()
    assert receiver.ids == [(await _alert(databases[0])).id] * (webhook.TRIES + 1)
    assert (await _alert(databases[0])).sent_at is not None
    assert len(_told(caplog)) == 1


async def test_a_webhook_that_hangs_keeps_nothing_out_of_the_log(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Webhook, "post", hang)
    service = await start(alert_webhook_url="http://127.0.0.1:9/")
    for number in (1, 2):
        await service.write(_row(f"bound:att_{number}", "bound"))

        async def sent(number: int = number) -> bool:
            return f"bound:att_{number}" in service.log

        assert await eventually(sent)


async def test_the_address_of_a_webhook_is_in_no_log(start: Start) -> None:
    """The URL of a webhook may be the only secret that a sender needs."""
    token = unique("token")
    service = await start(alert_webhook_url=f"http://127.0.0.1:9/{token}")
    await service.write(_row())

    async def failed() -> bool:
        return "The webhook did not take an alert" in service.log

    assert await eventually(failed)
    assert "ClientConnectorError" in service.log
    assert token not in service.log


async def test_the_service_posts_with_the_key_that_the_command_line_shows(
    start: Start, receiver: Receiver, run: Run
) -> None:
    key = (await run("alert-key")).stdout.strip()
    assert json.loads((await run("alert-key", "--json")).stdout) == {"key": key}
    service = await start(alert_webhook_url=receiver.url)
    assert service.settings.secret_key.get_secret_value() not in key
    await service.write(_row())

    async def posted() -> bool:
        return bool(receiver.requests)

    await eventually(posted)
    ((headers, body),) = receiver.requests
    assert headers["x-signature"] == f"sha256={_hmac(key, headers['x-timestamp'], body)}"


async def test_old_prices_raise_one_alert(
    databases: list[Database], policy_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = policy_dir / "models.toml"
    text = models.read_text("utf-8").replace(CHECKED, "prices_checked = 2020-01-01", 1)
    models.write_text(text, encoding="utf-8")
    policy = load(policy_dir)
    (old,) = [model for model in policy.models.values() if model.prices_are_old]
    await asyncio.gather(*(Alerts(each, policy, None).notify() for each in databases))
    assert _told(caplog) == [f"prices:{old.id}:2020-01-01"]
    row = await _alert(databases[0])
    assert (row.kind, row.details) == (
        "prices",
        {"model": old.id, "prices_checked": "2020-01-01"},
    )


async def test_an_alert_is_raised_once(databases: list[Database]) -> None:
    raising = (raise_alert(each, "x:1", "x", {"first": True}) for each in databases)
    await asyncio.gather(*raising)
    await raise_alert(databases[0], "x:1", "x", {"first": False})
    assert (await _alert(databases[0])).details == {"first": True}


async def test_it_goes_on_when_the_database_is_back(
    databases: list[Database],
    policy: Policy,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    replica = Alerts(databases[0], policy, None)
    look, looks = replica.notify, 0

    async def notify() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            raise DatabaseUnavailable("It is gone.")
        await look()

    monkeypatch.setattr(replica, "notify", notify)
    await _write(databases[0], _row())
    task = asyncio.create_task(replica.run())

    async def sent() -> bool:
        return bool(_told(caplog))

    assert await eventually(sent)
    assert looks > 1
    task.cancel()


def _hmac(key: str, timestamp: str, body: bytes) -> str:
    signed = timestamp.encode() + b"." + body
    return hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
