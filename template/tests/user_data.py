"""A user with rows in many tables, and all that the tables hold."""

from typing import Any

from sqlalchemy import insert, select

from gateway.db.tables import (
    metadata,
    predictions,
    team_invitations,
    teams,
    users,
    utc_now,
)
from gateway.ids import new_id
from tests.support import Service, User, chat

# The tables of which a deletion keeps rows.
KEPT = {"users", "predictions", "attempts", "accounts", "audit"}


async def lively_user(service: Service, canary: str) -> User:
    """A user with a row in as many tables as there are."""
    email = f"{canary}@example.com"
    made = await service.create_user(email=email)
    client = service.client(made)
    await client.post("/v1/chat/completions", json=chat(canary), headers={"Idempotency-Key": "k"})
    (row,) = [row for row in await service.rows(predictions) if row.user_id == made.id]
    feedback = {"rating": "up", "comment": canary}
    await client.put(f"/v1/predictions/{row.id}/feedback", json=feedback)
    team = {"id": new_id("team"), "name": "x", "plan": "many", "created_at": utc_now()}
    times = {"created_at": utc_now(), "expires_at": utc_now()}
    invited = {"id": new_id("inv"), "team_id": team["id"], "email": email, **times}
    await service.write(insert(teams).values(team), insert(team_invitations).values(invited))
    return made


async def user_row(service: Service, user: User) -> Any:
    return await service.database.fetch_one(select(users).where(users.c.id == user.id))


async def everything(service: Service) -> str:
    """All rows of all tables."""
    tables = metadata.sorted_tables
    return "\n".join([str(await service.database.fetch(select(each))) for each in tables])
