"""`GET /v1/me` and `GET /v1/usage`."""

import datetime as dt
from pathlib import Path

import httpx2
import pytest

from gateway.accounts.principals import Role
from gateway.db.tables import predictions, utc_now
from tests.factories import account, prediction
from tests.fixtures.service import Start
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


async def test_the_lines_are_the_sums_of_the_callers_rows(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    other = service.client(await service.create_user())
    for text in ("one", "one two", "one two three"):
        await client.post("/v1/chat/completions", json=chat(text))
        await other.post("/v1/chat/completions", json=chat(text))
    await client.post("/v1/embeddings", json={"model": "offline/embedding", "input": "one"})
    report = (await client.get("/v1/usage")).json()
    rows = [row for row in await service.rows(predictions) if row.user_id == user.id]
    chats, embeddings = report["data"]
    assert chats == {
        "date": rows[0].day,
        "model": "offline/echo",
        "requests": 3,
        "input_tokens": sum(row.input_tokens for row in rows[:3]),
        "output_tokens": sum(row.output_tokens for row in rows[:3]),
        **dict.fromkeys(("cached_input_tokens", "cache_write_tokens", "outputs"), 0),
        "cost_nano_usd": sum(row.cost_nano_usd for row in rows[:3]),
    }
    assert (embeddings["model"], embeddings["requests"]) == ("offline/embedding", 1)


async def test_periods_are_those_of_the_callers_account(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    today = utc_now().date().isoformat()
    await service.write(
        account(f"user:{user.id}", today, 5, 700),
        account(f"user:{user.id}", today[:7], 60, 800),
        account(f"user:{user.id}", "2026-01", 1, 1),
        account("service", today, 9, 9),
    )
    report = (await client.get("/v1/usage")).json()
    no_cap = {"cap_nano_usd": None}
    assert report["day"] == {"spent_nano_usd": 5, "reserved_nano_usd": 700} | no_cap
    assert report["month"] == {"spent_nano_usd": 60, "reserved_nano_usd": 800} | no_cap


async def test_caps_are_those_of_the_callers_plan(
    service: Service, policy_dir: Path, start: Start
) -> None:
    await service.stop()
    with (policy_dir / "plans.toml").open("a") as plans:
        plans.write(
            "capped = {requests_per_minute = 5, daily_budget_usd = 0.5, monthly_budget_usd = 3}"
        )
    service = await start()
    user = await service.create_user("capped")
    report = (await service.client(user).get("/v1/usage")).json()
    nothing = {"spent_nano_usd": 0, "reserved_nano_usd": 0}
    assert report["day"] == {**nothing, "cap_nano_usd": 500_000_000}
    assert report["month"] == {**nothing, "cap_nano_usd": 3_000_000_000}


async def test_a_plan_that_is_gone_pays_for_nothing(service: Service) -> None:
    user = await service.create_user("gone")
    report = (await service.client(user).get("/v1/usage")).json()
    assert (report["day"]["cap_nano_usd"], report["month"]["cap_nano_usd"]) == (0, 0)


async def test_days_can_be_chosen(service: Service, client: httpx2.AsyncClient, user: User) -> None:
    for day in (1, 2, 3):
        await service.write(prediction(user, dt.datetime(2026, 2, day, 12, tzinfo=dt.UTC)))
    report = (await client.get("/v1/usage?from=2026-02-02&to=2026-02-03")).json()
    assert [line["date"] for line in report["data"]] == ["2026-02-03", "2026-02-02"]


async def test_a_last_day_alone_asks_for_its_month(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    for month, day in ((1, 31), (2, 1), (2, 3), (2, 4)):
        await service.write(prediction(user, dt.datetime(2026, month, day, 12, tzinfo=dt.UTC)))
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


async def test_the_first_and_the_last_day_that_there_are(client: httpx2.AsyncClient) -> None:
    response = await client.get("/v1/usage?from=0001-01-01&to=9999-12-31")
    assert response.json()["data"] == []
