"""Fill a service's tables with a past: `python -m fill FIRST USERS PREDICTIONS`.

Rows are made by the database, in the order of their ids, which count from FIRST: each user has as
many predictions as the next one, each with its settled attempt, and accounts for today.
"""

import asyncio
import sys

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    Insert,
    String,
    cast,
    insert,
    literal,
    select,
)

from app import wiring
from app.settings import load
from gateway.db.tables import accounts, attempts, predictions, users, utc_now

# Ids have 32 digits. With 10**18 added, all numbers have 19.
ZEROS, ALL_LONG = "0" * 13, 10**18
LONGEST_SECONDS = 1800.0
# Days in the past: nothing that is measured adds them up.
OLD_DAY = "2020-01-01"


async def main(first: int, user_count: int, prediction_count: int) -> None:
    """Add so many users and predictions."""
    database = wiring.database.open_database(load().gateway)

    def fill(connection: Connection) -> None:
        for statement in _statements(first, user_count, prediction_count):
            connection.execute(statement)

    await database.transact(fill, LONGEST_SECONDS)
    await database.close()


def _statements(first: int, user_count: int, prediction_count: int) -> list[Insert]:
    now, each = utc_now(), prediction_count // user_count
    person = _numbers(first, user_count).c.n
    user_row = {
        "id": _id("usr", person),
        "email": _id("usr", person) + "@example.com",
        "role": literal("user"),
        "plan": literal("free"),
        "created_at": literal(now, users.c.created_at.type),
    }
    made = [insert(users).from_select(list(user_row), select(*user_row.values()))]
    for period in (now.date().isoformat(), now.date().isoformat()[:7]):
        account = {
            "name": "user:" + _id("usr", person),
            "period": literal(period),
            "spent_nano_usd": literal(1),
            "reserved_nano_usd": literal(0),
        }
        made.append(insert(accounts).from_select(list(account), select(*account.values())))
    number = _numbers(first, prediction_count).c.n
    shared = {
        "user_id": _id("usr", first + (number - first) // each),
        "model": literal("openai/gpt-5-mini"),
        "provider": literal("openai"),
        "cost_nano_usd": literal(1000),
        "day": literal(OLD_DAY),
    }
    prediction = shared | {
        "id": _id("pred", number),
        "request_id": literal("req_past"),
        "kind": literal("chat"),
        "status": literal("succeeded"),
        "outcome": literal("ok"),
        "input_tokens": literal(10),
        "output_tokens": literal(10),
        "microseconds": literal(0),
        "created_at": literal(now, predictions.c.created_at.type),
    }
    attempt = shared | {
        "id": _id("att", number),
        "prediction_id": _id("pred", number),
        "number": literal(1),
        "state": literal("settled"),
        "bound_nano_usd": literal(1000),
        "price": literal("{}"),
        "plan": literal("free"),
        "opened_at": literal(now, attempts.c.opened_at.type),
        "lease_until": literal(now, attempts.c.lease_until.type),
    }
    for table, row in ((predictions, prediction), (attempts, attempt)):
        made.append(insert(table).from_select(list(row), select(*row.values())))
    return made


def _numbers(first: int, count: int) -> CTE:
    """So many numbers, counted from `first`."""
    start = select(cast(literal(first), BigInteger).label("n")).cte("numbers", recursive=True)
    return start.union_all(select(start.c.n + 1).where(start.c.n < first + count - 1))


def _id(prefix: str, number: ColumnElement[int]) -> ColumnElement[str]:
    return literal(f"{prefix}_{ZEROS}") + cast(cast(number, BigInteger) + ALL_LONG, String)


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
