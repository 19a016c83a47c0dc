"""Searches of predictions: what they find, in pages that are stable under writes, by indexes."""

import datetime as dt
from typing import Any

import httpx2
import pytest
from sqlalchemy import select

from gateway.accounts.principals import Role
from gateway.db.tables import predictions, utc_now
from gateway.ledger.records import owned
from gateway.ledger.search import Search, search_of
from gateway.providers.base import Outcome
from tests.explain import explain
from tests.factories import prediction
from tests.support import Service, User, error_of

DAYS = [dt.datetime(2026, 3, day, 12, tzinfo=dt.UTC) for day in (1, 2, 3, 4)]
# By name, one a day: what most have, and what few have.
ROWS: dict[str, dict[str, Any]] = {
    "first": {"model": "a/b", "outcome": "ok", "rating": "up"},
    "second": {"model": "c/d", "outcome": "ok"},
    "third": {"model": "a/b", "outcome": "timeout"},
    "fourth": {"model": "a/b", "outcome": "ok", "rating": "down"},
}
FOUND = [
    ("", ["fourth", "third", "second", "first"]),
    ("model=a/b", ["fourth", "third", "first"]),
    ("model=a", []),
    ("outcome=ok", ["fourth", "second", "first"]),
    ("outcome=timeout", ["third"]),
    ("rating=up", ["first"]),
    ("rating=down", ["fourth"]),
    ("model=a/b&outcome=ok&rating=down", ["fourth"]),
    ("model=c/d&outcome=timeout", []),
    ("from=2026-03-02T12:00:00Z", ["fourth", "third", "second"]),
    ("to=2026-03-02T12:00:00Z", ["first"]),
    ("from=2026-03-02T12:00:01Z&to=2026-03-04T14:00:00%2B02:00", ["third"]),
    ("from=0001-01-01T00:00:00Z&to=9999-12-31T00:00:00Z&outcome=timeout", ["third"]),
]


@pytest.fixture
async def names(service: Service, user: User) -> dict[str, str]:
    """The rows of `user`, each with its name, and as many of somebody else."""
    other = await service.create_user()
    made: dict[str, str] = {}
    for day, (name, values) in zip(DAYS, ROWS.items(), strict=True):
        for owner in (other, user):
            row = prediction(owner, day, status="succeeded", **values)
            await service.write(row)
            made[row.compile().params["id"]] = name if owner is user else "another's"
    return made


@pytest.mark.parametrize(("query", "expected"), FOUND)
async def test_users_find_their_own(
    client: httpx2.AsyncClient, names: dict[str, str], query: str, expected: list[str]
) -> None:
    page = (await client.get(f"/v1/predictions?{query}")).json()
    assert [names[row["id"]] for row in page["data"]] == expected


@pytest.mark.parametrize(("query", "expected"), FOUND)
async def test_administrators_find_a_users_and_all(
    service: Service, user: User, names: dict[str, str], query: str, expected: list[str]
) -> None:
    reader = service.client(await service.create_user(role=Role.AUDITOR))
    path = f"/v1/admin/predictions?{query}"
    own = (await reader.get(f"{path}&user_id={user.id}")).json()["data"]
    assert [names[row["id"]] for row in own] == expected
    every = (await reader.get(path)).json()["data"]
    assert [row["id"] for row in every if row["user_id"] == user.id] == [row["id"] for row in own]
    assert len(every) == 2 * len(own)


async def test_pages_of_a_search_are_stable_under_writes(
    service: Service, client: httpx2.AsyncClient, user: User, names: dict[str, str]
) -> None:
    path = "/v1/predictions?model=a/b&limit=1"
    first = (await client.get(path)).json()
    await service.write(prediction(user, utc_now(), model="a/b", outcome="ok"))
    (third,) = [name for name, row in names.items() if row == "third"]
    await client.delete(f"/v1/predictions/{first['next_cursor']}")
    second = (await client.get(f"{path}&cursor={first['next_cursor']}")).json()
    assert [row["id"] for row in second["data"]] == [third]


async def test_a_rating_is_found_until_its_record_is_erased(client: httpx2.AsyncClient) -> None:
    body = {"model": "offline/echo", "input": {"prompt": "one"}}
    made = (await client.post("/v1/predictions", json=body)).json()["id"]
    found = []
    for rating in ("up", "down"):
        await client.put(f"/v1/predictions/{made}/feedback", json={"rating": rating})
        for asked in ("up", "down"):
            page = (await client.get(f"/v1/predictions?rating={asked}")).json()
            found.append((rating, asked, len(page["data"])))
    assert found == [("up", "up", 1), ("up", "down", 0), ("down", "up", 0), ("down", "down", 1)]
    await client.delete(f"/v1/predictions/{made}")
    assert (await client.get("/v1/predictions?rating=down")).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *[("rating=meh", "rating"), ("outcome=good", "outcome"), ("model=%00", "model")],
        *[(f"model={'x' * 201}", "model"), ("from=2026-03-02", "from"), ("to=1", "to")],
        *[("from=2026-03-02T12:00:00", "from"), ("user_id=usr_1", "user_id")],
        *[("from=9999-12-31T23:59:59-23:59", "from"), ("to=0001-01-01T00:00:00%2B01:00", "to")],
        ("from=2026-03-02T12:00:00Z&to=2026-03-02T12:00:00Z", "from"),
    ],
)
async def test_a_wrong_search_is_refused(
    client: httpx2.AsyncClient, query: str, param: str
) -> None:
    status, _, named = error_of(await client.get(f"/v1/predictions?{query}"))
    assert (status, named) == (422, param)


PLANNED = [
    search_of("a/b", None, None, None, None),
    search_of(None, Outcome.TIMEOUT, None, None, None),
    search_of(None, None, "up", None, None),
    search_of(None, Outcome.OK, None, DAYS[0], DAYS[1]),
    search_of("a/b", Outcome.TIMEOUT, "up", DAYS[0], DAYS[1]),
]


@pytest.mark.parametrize("own", [True, False], ids=["of-a-user", "of-all"])
@pytest.mark.parametrize("search", PLANNED, ids=["model", "outcome", "rating", "time", "all"])
async def test_no_search_reads_or_sorts_the_whole_table(
    service: Service, user: User, search: Search, own: bool
) -> None:
    query = search.of(owned(user.id) if own else select(predictions))
    page = query.order_by(predictions.c.id.desc()).limit(21)
    plan = "\n".join(await service.database.transact(lambda db: explain(db, page)))
    assert "index" in plan.lower()
    assert "Seq Scan" not in plan
    assert "Sort" not in plan
    assert "TEMP B-TREE" not in plan
    assert "SCAN" not in plan
