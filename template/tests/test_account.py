"""`GET /v1/me` and `GET /v1/usage`."""

import datetime as dt
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection, insert

from app.auth.principal import Role
from app.db.tables import attempts, predictions
from app.ids import new_id
from tests.simulator.faults import Fault
from tests.support import POLICY, Service, User, chat, error_of


async def test_me(service: Service) -> None:
    user = await service.create_user("few", "jane@example.com", Role.AUDITOR)
    me = (await service.client(user).get("/v1/me")).json()
    assert dt.datetime.fromisoformat(me["created_at"]).utcoffset() == dt.timedelta(0)
    assert me.pop("created_at").endswith("Z")
    assert me == {"id": user.id, "email": "jane@example.com", "role": "auditor", "plan": "few"}


@pytest.mark.parametrize("path", ["/v1/me", "/v1/usage", "/v1/predictions"])
async def test_strangers_learn_nothing(service: Service, path: str) -> None:
    response = await service.client().get(path)
    assert error_of(response) == (401, "invalid_credentials", None)
    assert "WWW-Authenticate" in response.headers


async def test_usage_agrees_with_the_rows(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    other = service.client(await service.create_user())
    for text in ("one", "one two", "one two three"):
        await client.post("/v1/chat/completions", json=chat(text))
        await other.post("/v1/chat/completions", json=chat(text))
    await client.post("/v1/embeddings", json={"model": "offline/embedding", "input": "one"})
    report = (await client.get("/v1/usage")).json()
    rows = [row for row in await service.rows(predictions) if row.user_id == user.id]
    spent = sum(row.cost_nano_usd for row in rows)
    paid = [row for row in await service.rows(attempts) if row.user_id == user.id]
    assert sum(row.cost_nano_usd for row in paid) == spent > 0
    for period in ("day", "month"):
        assert report[period] == {
            "spent_nano_usd": spent,
            "reserved_nano_usd": 0,
            "cap_nano_usd": None,
        }
    chats, embeddings = report["data"]
    assert chats == {
        "date": rows[0].day,
        "model": "offline/echo",
        "requests": 3,
        "input_tokens": sum(row.input_tokens for row in rows[:3]),
        "output_tokens": sum(row.output_tokens for row in rows[:3]),
        "cost_nano_usd": sum(row.cost_nano_usd for row in rows[:3]),
    }
    assert (embeddings["model"], embeddings["requests"]) == ("offline/embedding", 1)


async def test_what_runs_is_reserved(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    await _open(service, user, dt.datetime.now(dt.UTC), bound=700)
    report = (await client.get("/v1/usage")).json()
    expected = {"spent_nano_usd": 0, "reserved_nano_usd": 700, "cap_nano_usd": None}
    assert report["day"] == report["month"] == expected


async def test_days_can_be_chosen(service: Service, client: httpx2.AsyncClient, user: User) -> None:
    for day in (1, 2, 3):
        await _open(service, user, dt.datetime(2026, 2, day, 12, tzinfo=dt.UTC))
    report = (await client.get("/v1/usage?from=2026-02-02&to=2026-02-03")).json()
    assert [line["date"] for line in report["data"]] == ["2026-02-03", "2026-02-02"]
    assert report["day"]["reserved_nano_usd"] == 0


async def test_a_last_day_alone_asks_for_its_month(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    for month, day in ((1, 31), (2, 1), (2, 3), (2, 4)):
        await _open(service, user, dt.datetime(2026, month, day, 12, tzinfo=dt.UTC))
    report = (await client.get("/v1/usage?to=2026-02-03")).json()
    assert [line["date"] for line in report["data"]] == ["2026-02-03", "2026-02-01"]


async def test_what_failed_without_a_bill_is_a_request_that_cost_nothing(
    service: Service, client: httpx2.AsyncClient
) -> None:
    model = next(name for name in POLICY if not name.startswith("offline/"))
    service.simulator.inject(Fault(kind="rate_limited"))
    body = {"model": model, "input": {"prompt": "one"}}
    assert (await client.post("/v1/predictions", json=body)).status_code == 503
    report = (await client.get("/v1/usage")).json()
    (line,) = report["data"]
    assert (line["model"], line["requests"], line["cost_nano_usd"]) == (model, 1, 0)
    assert report["day"] == {"spent_nano_usd": 0, "reserved_nano_usd": 0, "cap_nano_usd": None}


@pytest.mark.parametrize(
    "query", ["from=2026-02-02&to=2026-02-01", "from=yesterday", "from=2026-13-01"]
)
async def test_wrong_days(client: httpx2.AsyncClient, query: str) -> None:
    assert error_of(await client.get(f"/v1/usage?{query}")) == (422, "invalid_request", "from")


async def _open(service: Service, user: User, at: dt.datetime, bound: int = 1) -> None:
    """A generation of that moment which still runs."""
    shared: dict[str, Any] = {"user_id": user.id, "day": at.date().isoformat()}
    prediction = {
        "id": new_id("pred"),
        "request_id": "req_x",
        "kind": "chat",
        "model": "offline/echo",
        "status": "running",
        "created_at": at,
    }
    attempt = {
        "id": new_id("att"),
        "prediction_id": prediction["id"],
        "number": 1,
        "provider": "offline",
        "model": "offline/echo",
        "state": "reserved",
        "bound_nano_usd": bound,
        "price": {},
        "opened_at": at,
        "lease_until": at,
    }

    def write(connection: Connection) -> None:
        connection.execute(insert(predictions), shared | prediction)
        connection.execute(insert(attempts), shared | attempt)

    await service.database.transact(write)
