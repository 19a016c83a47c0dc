"""The budget and the limits of a team, which its members share beside their own."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import update

from app import wiring
from gateway.accounts.audit import command_line
from gateway.accounts.principals import TeamRole
from gateway.accounts.teams import Teams
from gateway.db.tables import attempts, predictions, teams
from gateway.providers.base import ProviderRequest, Reply
from tests.fake_provider import MAX_COST, FakeProvider
from tests.fixtures.service import Start
from tests.gateway.test_budget_races import Billing
from tests.ledger_helpers import add_plans, budget_alerts, check_accounts, usd, watching
from tests.support import Service, User, chat, error_of

CHAT = "/v1/chat/completions"
PROCESSES = 1 + wiring.MANY_PROCESSES


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> FakeProvider:
    return FakeProvider.install(monkeypatch)


async def make_team(service: Service, members: int, plan: str = "capped") -> tuple[str, list[User]]:
    """A team of so many users, each with a generous plan of their own."""
    users = [await service.create_user() for _ in range(members)]
    table = Teams(service.database)
    team = await table.create("Acme", plan, command_line())
    for user in users:
        await table.add(team.id, user.id, TeamRole.MEMBER, command_line())
    return team.id, users


def declare(policy_dir: Path, limits: str) -> None:
    """Declare the team plan `capped`."""
    add_plans(policy_dir, f"[team_plans.capped]\n{limits}")


async def test_a_teams_cap_that_pays_for_37_calls_lets_37_of_500_calls_of_ten_members_through(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    declare(policy_dir, f"requests_per_minute = 60000\ndaily_budget_usd = {usd(37 * MAX_COST)}")
    services = [await start() for _ in range(PROCESSES)]
    team_id, members = await make_team(services[0], 10)
    clients = [services[n % PROCESSES].client(user) for n, user in enumerate(members)]
    scripted.on_answer = billing = Billing(1)
    with watching({f"team:{team_id}": 37 * MAX_COST}) as above:
        answers = await asyncio.gather(
            *(clients[n % 10].post(CHAT, json=chat()) for n in range(500))
        )
    assert above == []
    seen = Counter(
        (answer.status_code, "" if answer.is_success else error_of(answer)[1]) for answer in answers
    )
    assert seen == {(200, ""): 37, (402, "budget_exceeded"): 463}
    assert billing.billed == 37 * MAX_COST
    rows = await services[0].rows(attempts)
    assert {row.team_id for row in rows} == {team_id}
    await check_accounts(services[0])
    told = await budget_alerts(services[0], f"team:{team_id}")
    assert sorted(percent for _, percent in told) == [50, 80, 100]


async def test_members_share_the_teams_limits_and_keep_their_own(
    start: Start, policy_dir: Path
) -> None:
    declare(policy_dir, "requests_per_minute = 5")
    service = await start()
    _, members = await make_team(service, 2)
    outsider = service.client(await service.create_user())
    answers = [await service.client(members[n % 2]).post(CHAT, json=chat()) for n in range(6)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert answers[5].headers["x-ratelimit-limit-requests"] == "5"
    assert (await outsider.post(CHAT, json=chat())).status_code == 200


async def test_a_team_plan_that_is_gone_refuses_the_members(start: Start, policy_dir: Path) -> None:
    declare(policy_dir, "requests_per_minute = 5")
    service = await start()
    _, (member,) = await make_team(service, 1)
    await service.write(update(teams).values(plan="gone"))
    refused = await service.client(member).post(CHAT, json=chat())
    assert error_of(refused) == (403, "forbidden", None)
    assert await service.rows(predictions) == []


async def test_the_refusal_names_the_teams_budget(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    declare(policy_dir, f"daily_budget_usd = {usd(MAX_COST)}")
    service = await start()
    _, (member,) = await make_team(service, 1)
    scripted.on_answer = Billing(1)
    client = service.client(member)
    assert (await client.post(CHAT, json=chat())).status_code == 200
    refused = await client.post(CHAT, json=chat())
    assert error_of(refused)[:2] == (402, "budget_exceeded")
    assert "your team's budget for the day" in refused.json()["error"]["message"]


async def test_a_call_counts_against_the_team_that_its_user_had_when_it_began(
    scripted: FakeProvider, start: Start, policy_dir: Path
) -> None:
    declare(policy_dir, "daily_budget_usd = 1")
    service = await start()
    team_id, (member,) = await make_team(service, 1)
    began, leave = asyncio.Event(), asyncio.Event()
    billing = Billing(1)

    async def answer(request: ProviderRequest) -> Reply:
        began.set()
        await leave.wait()
        return await billing(request)

    scripted.on_answer = answer
    call = asyncio.create_task(service.client(member).post(CHAT, json=chat()))
    await began.wait()
    await Teams(service.database).remove(team_id, member.id, command_line())
    leave.set()
    assert (await call).status_code == 200
    sums = await check_accounts(service)
    assert {pair for (name, _), pair in sums.items() if name == f"team:{team_id}"} == {
        (MAX_COST, 0)
    }
