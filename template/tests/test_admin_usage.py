"""What the whole service spent, for the owner: `/v1/admin/usage` and `python -m app usage`."""

import datetime as dt
import json
from pathlib import Path

import httpx2
import pytest

from gateway.accounts.principals import Role
from gateway.db.tables import predictions, utc_now
from tests.factories import account, prediction
from tests.fixtures.service import Run
from tests.support import Service, User, chat, error_of

USAGE = "/v1/admin/usage"


@pytest.fixture
def policy_dir(policy_dir: Path) -> Path:
    """With caps for the service and for the plan `capped`."""
    plans = policy_dir / "plans.toml"
    text = plans.read_text(encoding="utf-8")
    service = "[service]\ndaily_budget_usd = 20\nmonthly_budget_usd = 200\n"
    capped = "capped = {requests_per_minute = 60, daily_budget_usd = 0.5}\n"
    plans.write_text(service + text + capped, encoding="utf-8")
    return policy_dir


@pytest.fixture
async def client(service: Service) -> httpx2.AsyncClient:
    """An administrator's."""
    return service.client(await service.create_user(role=Role.ADMIN))


async def test_the_periods_are_those_of_the_service_and_its_caps(
    service: Service, client: httpx2.AsyncClient, user: User
) -> None:
    today = utc_now().date().isoformat()
    await service.write(
        account("service", today, 5, 700),
        account("service", today[:7], 60, 800),
        account(f"user:{user.id}", today, 1),
    )
    report = (await client.get(USAGE)).json()
    assert report == {
        "day": {
            "spent_nano_usd": 5,
            "reserved_nano_usd": 700,
            "cap_nano_usd": 20 * 10**9,
        },
        "month": {
            "spent_nano_usd": 60,
            "reserved_nano_usd": 800,
            "cap_nano_usd": 200 * 10**9,
        },
        "data": [],
    }


async def test_all_users_share_a_line_of_a_model(
    service: Service, client: httpx2.AsyncClient
) -> None:
    for _ in range(2):
        own = service.client(await service.create_user())
        await own.post("/v1/chat/completions", json=chat())
    rows = await service.rows(predictions)
    (line,) = (await client.get(USAGE)).json()["data"]
    assert line == {
        "date": rows[0].day,
        "model": "offline/echo",
        "requests": 2,
        "input_tokens": sum(row.input_tokens for row in rows),
        "output_tokens": sum(row.output_tokens for row in rows),
        **dict.fromkeys(("cached_input_tokens", "cache_write_tokens", "outputs"), 0),
        "cost_nano_usd": sum(row.cost_nano_usd for row in rows),
    }
    assert line["cost_nano_usd"] > 0


async def test_lines_by_user_and_by_outcome(service: Service, client: httpx2.AsyncClient) -> None:
    people = [await service.create_user() for _ in range(2)]
    day = dt.datetime(2026, 2, 1, 12, tzinfo=dt.UTC)
    await service.write(
        prediction(people[0], day, outcome="ok", cost_nano_usd=1),
        prediction(people[0], day, outcome="timeout", cost_nano_usd=20),
        prediction(people[1], day, outcome="ok", cost_nano_usd=300),
        prediction(people[1], day),
        prediction(people[1], day - dt.timedelta(days=1), outcome="ok", cost_nano_usd=4000),
    )
    days = {"from": "2026-02-01", "to": "2026-02-01"}
    by_user = (await client.get(USAGE, params={**days, "group_by": "user"})).json()["data"]
    assert [(line["user_id"], line["cost_nano_usd"]) for line in by_user] == [
        (people[0].id, 21),
        (people[1].id, 300),
    ]
    by_outcome = (await client.get(USAGE, params={**days, "group_by": "outcome"})).json()["data"]
    costs = {line["outcome"]: line["cost_nano_usd"] for line in by_outcome}
    assert costs == {"ok": 301, "timeout": 20, None: 0}
    for line in (*by_user, *by_outcome):
        assert "model" not in line


async def test_a_wrong_question(client: httpx2.AsyncClient) -> None:
    wrong = await client.get(f"{USAGE}?group_by=day")
    assert error_of(wrong) == (422, "invalid_request", "group_by")
    days = await client.get(f"{USAGE}?from=2026-02-02&to=2026-02-01")
    assert error_of(days) == (422, "invalid_request", "from")


async def test_the_command_line_says_the_same(
    service: Service, client: httpx2.AsyncClient, user: User, run: Run
) -> None:
    await service.client(user).post("/v1/chat/completions", json=chat())
    shown = await run("usage", "--group-by", "user", "--json")
    assert json.loads(shown.stdout) == (await client.get(f"{USAGE}?group_by=user")).json()
    own = await run("usage", "--user", user.email.upper(), "--json")
    assert json.loads(own.stdout) == (await service.client(user).get("/v1/usage")).json()


async def test_a_person_reads_dollars_and_caps(service: Service, user: User, run: Run) -> None:
    now = utc_now()
    today = now.date().isoformat()
    await service.write(
        account("service", today, 1_234_567_890, 5),
        account("service", today[:7], 2_000_000_000),
        prediction(user, now, input_tokens=3, output_tokens=4, cost_nano_usd=8_750),
    )
    lines = (await run("usage")).stdout.splitlines()
    assert lines == [
        "Today: spent 1.234567890 USD, reserved 0.000000005 USD; the cap is 20.000000000 USD",
        "This month: spent 2.000000000 USD, reserved 0.000000000 USD; the cap is 200.000000000 USD",
        f"{today}  offline/echo  1 request  3 + 4 tokens  0.000008750 USD",
    ]
    (line,) = (await run("usage", "--group-by", "outcome")).stdout.splitlines()[2:]
    assert line.startswith(f"{today}  running  1 request")
    (line,) = (await run("usage", "--group-by", "user")).stdout.splitlines()[2:]
    assert line.startswith(f"{today}  {user.email}  1 request")
    uncapped = await run("usage", "--user", user.email)
    assert "there is no cap" in uncapped.stdout


async def test_the_command_line_takes_days(service: Service, user: User, run: Run) -> None:
    for day in (1, 2, 3):
        await service.write(prediction(user, dt.datetime(2026, 2, day, 12, tzinfo=dt.UTC)))
    shown = await run("usage", "--from", "2026-02-02", "--to", "2026-02-03", "--json")
    dates = [line["date"] for line in json.loads(shown.stdout)["data"]]
    assert dates == ["2026-02-03", "2026-02-02"]
    assert (await run("usage", "--from", "2026-02-02", "--to", "2026-02-01")).exit_code == 1
    assert (await run("usage", "--from", "yesterday")).exit_code == 2
    assert (await run("usage", "--user", "nobody@example.com")).exit_code == 1
