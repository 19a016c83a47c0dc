"""Several processes that serve at once share the database and the limits."""

import asyncio
from collections import Counter
from pathlib import Path

from gateway.accounts.principals import Role
from gateway.db.tables import predictions, utc_now
from tests.fixtures.service import Start
from tests.ledger_helpers import add_plans, check_accounts, usd
from tests.support import chat, error_of

CHAT = "/v1/chat/completions"


async def test_two_services_admit_no_more_than_one(start: Start) -> None:
    one, other = await start(), await start()
    user = await one.create_user("few")
    clients = [one.client(user), other.client(user)]
    requests = [client.post(CHAT, json=chat()) for client in clients for _ in range(50)]
    answers = await asyncio.gather(*requests)
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 95}
    assert len(await one.rows(predictions)) == 5


async def test_of_the_requests_with_one_key_one_runs(start: Start) -> None:
    one, other = await start(), await start()
    user = await one.create_user()
    clients = [one.client(user), other.client(user)]
    key = {"Idempotency-Key": "once"}
    requests = [client.post(CHAT, json=chat(), headers=key) for client in clients * 20]
    answers = await asyncio.gather(*requests)
    assert set(Counter(answer.status_code for answer in answers)) <= {200, 409}
    replays = [await client.post(CHAT, json=chat(), headers=key) for client in clients]
    served = {answer.content for answer in [*answers, *replays] if answer.is_success}
    assert len(served) == len(await one.rows(predictions)) == 1


async def test_replicas_share_records(start: Start) -> None:
    one, other = await start(), await start()
    user = await one.create_user()
    answer = await one.client(user).post(CHAT, json=chat())
    path = f"/v1/predictions/{answer.headers['X-Prediction-ID']}"
    shown = await other.client(user).get(path)
    assert shown.json()["cost_nano_usd"] == (await one.attempt()).cost_nano_usd > 0
    assert (await other.client(user).delete(path)).status_code == 204
    assert error_of(await one.client(user).get(path)) == (404, "not_found", None)


async def test_in_a_rollout_each_call_is_held_to_the_caps_of_the_replica_that_takes_it(
    start: Start, policy_dir: Path
) -> None:
    before = await start()
    user = await before.create_user()
    assert (await before.client(user).post(CHAT, json=chat())).status_code == 200
    bound = (await before.attempt()).bound_nano_usd
    # It pays for one call, and one was made.
    add_plans(policy_dir, service=f"daily_budget_usd = {usd(bound)}")
    after = await start()
    answers = [await each.client(user).post(CHAT, json=chat()) for each in (after, before, after)]
    assert [answer.status_code for answer in answers] == [402, 200, 402]
    ready = [await each.client().get("/readyz") for each in (before, after)]
    assert [answer.status_code for answer in ready] == [200, 200]
    assert len({answer.json()["policy_version"] for answer in ready}) == 2
    await check_accounts(before)


async def test_a_new_plan_and_a_raise_act_at_once_on_every_replica(start: Start) -> None:
    one, other = await start(), await start()
    admin = one.client(await one.create_user(role=Role.ADMIN))
    user = await one.create_user("few")
    clients = [one.client(user), other.client(user)]
    path = f"/v1/admin/users/{user.id}"
    seen = [(await client.get("/v1/me")).json()["plan"] for client in clients]
    await admin.patch(path, json={"plan": "poor"})
    seen += [(await client.get("/v1/me")).json()["plan"] for client in clients]
    assert seen == ["few", "few", "poor", "poor"]
    refused = [(await client.post(CHAT, json=chat())).status_code for client in clients]
    body = {"daily_nano_usd": 10**9, "monthly_nano_usd": 10**9, "until": str(utc_now().date())}
    await admin.put(f"{path}/budget", json=body)
    served = [(await client.post(CHAT, json=chat())).status_code for client in clients]
    assert (refused, served) == ([400, 400], [200, 200])
