"""Invitations to a team, by e-mail address.

The owner of a team learns nothing of other users: an invitation of an unknown address looks the
same. The invited user accepts after the log-in.
"""

import datetime as dt
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select

from gateway.accounts.audit import Actor, record
from gateway.accounts.principals import TeamRole
from gateway.accounts.teams import enter, lock
from gateway.accounts.users import address
from gateway.db.engine import Database
from gateway.db.tables import team_invitations, teams, users, utc_now
from gateway.errors import Conflict, NotFound
from gateway.ids import new_id, pattern

INVITATION_ID = pattern("inv")
VALID_FOR = dt.timedelta(days=7)
# Bounds what a team's owner can store.
MAX_PENDING = 100


class Invitations:
    """The table of pending invitations. Every query filters by the team or by the address."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, team_id: str, email: str, actor: Actor) -> Row[Any]:
        """A new invitation, in place of an earlier one to the same address.

        Raises `InvalidRequest`, and `Conflict` with too many pending ones.
        """
        now, email = utc_now(), address(email)
        made = insert(team_invitations).values(
            id=new_id("inv"),
            team_id=team_id,
            email=email,
            created_at=now,
            expires_at=now + VALID_FOR,
        )

        def write(connection: Connection) -> Row[Any]:
            lock(connection, team_id)
            own = team_invitations.c.team_id == team_id
            old = (team_invitations.c.email == email) | (team_invitations.c.expires_at <= now)
            connection.execute(delete(team_invitations).where(own, old))
            count = select(func.count()).select_from(team_invitations).where(own)
            if connection.execute(count).scalar_one() >= MAX_PENDING:
                raise Conflict(f"A team has {MAX_PENDING} pending invitations at most.")
            row = connection.execute(made.returning(team_invitations)).one()
            record(connection, actor, "invite", f"team:{team_id}", None, {"invitation_id": row.id})
            return row

        return await self._database.transact(write)

    async def withdraw(self, team_id: str, invitation_id: str, actor: Actor) -> None:
        """Delete a pending invitation. Raises `NotFound`, also for another team's invitation."""
        mine = team_invitations.c.id == invitation_id, team_invitations.c.team_id == team_id

        def write(connection: Connection) -> None:
            known = INVITATION_ID.fullmatch(invitation_id)
            if not (known and connection.execute(delete(team_invitations).where(*mine)).rowcount):
                raise no_invitation()
            before = {"invitation_id": invitation_id}
            record(connection, actor, "withdraw", f"team:{team_id}", before, None)

        await self._database.transact(write)

    async def accept(self, user_id: str, invitation_id: str, actor: Actor) -> str:
        """Make the invited user a member, and return the id of the team.

        Raises `NotFound` unless a valid invitation names the address of this user, and `Conflict`
        for a member of another team.
        """
        query = received(user_id).where(team_invitations.c.id == invitation_id)
        used = delete(team_invitations).where(team_invitations.c.id == invitation_id)

        def write(connection: Connection) -> str:
            known = INVITATION_ID.fullmatch(invitation_id)
            row = connection.execute(query).one_or_none() if known else None
            if row is None:
                raise no_invitation()
            lock(connection, row.team_id)
            if not connection.execute(used).rowcount:
                raise no_invitation()
            enter(connection, row.team_id, user_id, TeamRole.MEMBER, actor, "join")
            return str(row.team_id)

        return await self._database.transact(write)


def pending(team_id: str) -> Select[Any]:
    """The query for the valid invitations of a team."""
    is_valid = team_invitations.c.expires_at > utc_now()
    return select(team_invitations).where(team_invitations.c.team_id == team_id, is_valid)


def received(user_id: str) -> Select[Any]:
    """The query for the valid invitations to the verified address of a user, with the team's
    name.
    """
    return (
        select(team_invitations, teams.c.name.label("team_name"))
        .join(teams, teams.c.id == team_invitations.c.team_id)
        .join(users, users.c.email == team_invitations.c.email)
        .where(
            users.c.id == user_id,
            # Else another person's address would do.
            users.c.must_verify_email.is_(False),
            team_invitations.c.expires_at > utc_now(),
        )
    )


def no_invitation() -> NotFound:
    """The error for an invitation that is unknown, used, expired or another user's."""
    return NotFound("There is no such invitation.")
