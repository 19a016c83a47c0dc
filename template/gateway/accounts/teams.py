"""Teams and their members. A user belongs to at most one team."""

from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from gateway.accounts.audit import Actor, record
from gateway.accounts.principals import TeamRole
from gateway.accounts.users import USER_ID, existing
from gateway.db.engine import Database
from gateway.db.tables import teams, users, utc_now
from gateway.errors import Conflict, NotFound
from gateway.ids import new_id, pattern

TEAM_ID = pattern("team")


class Teams:
    """The tables of teams and of their members."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, plan: str, actor: Actor) -> Row[Any]:
        """A new team without members."""
        row = insert(teams).values(id=new_id("team"), name=name, plan=plan, created_at=utc_now())

        def write(connection: Connection) -> Row[Any]:
            made = connection.execute(row.returning(teams)).one()
            record(connection, actor, "create", f"team:{made.id}", None, {"plan": plan})
            return made

        return await self._database.transact(write)

    async def get(self, team_id: str) -> Row[Any]:
        """The team with this id. Raises `NotFound`."""
        known = TEAM_ID.fullmatch(team_id)
        query = select(teams).where(teams.c.id == team_id)
        row = await self._database.fetch_one(query) if known else None
        if row is None:
            raise unknown_team()
        return row

    async def list(self) -> list[Row[Any]]:
        """All teams, the oldest first."""
        return list(await self._database.fetch(select(teams).order_by(teams.c.id)))

    async def change(
        self, team_id: str, actor: Actor, *, name: str | None = None, plan: str | None = None
    ) -> Row[Any]:
        """Change the given fields, and return the team. Raises `NotFound`."""
        given = {"name": name, "plan": plan}
        wanted = {field: value for field, value in given.items() if value is not None}

        def write(connection: Connection) -> None:
            row = lock(connection, team_id)
            after = {field: value for field, value in wanted.items() if value != row[field]}
            if not after:
                return
            connection.execute(update(teams).where(teams.c.id == team_id).values(**after))
            target = f"team:{team_id}"
            if "plan" in after:
                before = {"plan": row["plan"]}
                record(connection, actor, "change", target, before, {"plan": plan})
            if "name" in after:  # The audit keeps no names, as those of keys.
                record(connection, actor, "rename", target, None, None)

        await self._database.transact(write)
        return await self.get(team_id)

    async def add(self, team_id: str, user_id: str, role: TeamRole, actor: Actor) -> None:
        """Make a user a member, or change the role of a member.

        Raises `NotFound`, and `Conflict` for a member of another team.
        """

        def write(connection: Connection) -> None:
            lock(connection, team_id)
            enter(connection, team_id, user_id, role, actor, "add")

        await self._database.transact(write)

    async def remove(
        self, team_id: str, user_id: str, actor: Actor, *, keep_an_owner: bool = True
    ) -> None:
        """End a membership at once.

        Raises `NotFound` for a user who is no member, and `Conflict` for the last owner, unless
        `keep_an_owner` is false.
        """

        def write(connection: Connection) -> None:
            lock(connection, team_id)
            own = users.c.id == user_id, users.c.team_id == team_id
            query, known = select(users.c.team_role).where(*own), USER_ID.fullmatch(user_id)
            row = connection.execute(query).one_or_none() if known else None
            if row is None:
                raise NotFound("There is no such member.")
            if (
                keep_an_owner
                and row.team_role == TeamRole.OWNER
                and not _has_another_owner(connection, team_id, user_id)
            ):
                raise Conflict("The team's last owner stays: an administrator can name another.")
            connection.execute(update(users).where(*own).values(team_id=None, team_role=None))
            before = {"team_id": team_id, "team_role": row.team_role}
            record(connection, actor, "remove", f"user:{user_id}", before, None)

        await self._database.transact(write)


def members_of(team_id: str) -> Select[Any]:
    """The query for the members of a team."""
    return existing().where(users.c.team_id == team_id)


def unknown_team() -> NotFound:
    """The error for a team that does not exist, and for a caller without one."""
    return NotFound("There is no such team.")


def lock(connection: Connection, team_id: str) -> Any:
    """The row of a team, locked until the end of the transaction. Raises `NotFound`.

    Changes of the members of one team happen one after the other.
    """
    query = select(teams).where(teams.c.id == team_id).with_for_update()
    row = connection.execute(query).mappings().one_or_none() if TEAM_ID.fullmatch(team_id) else None
    if row is None:
        raise unknown_team()
    return row


def enter(
    connection: Connection,
    team_id: str,
    user_id: str,
    role: TeamRole,
    actor: Actor,
    action: str,
) -> None:
    """Make a user a member. Raises `NotFound`, and `Conflict` for a member of another team."""
    own = users.c.id == user_id, users.c.deleted_at.is_(None)
    query = select(users.c.team_id, users.c.team_role).where(*own)
    known = USER_ID.fullmatch(user_id)
    row = connection.execute(query.with_for_update()).one_or_none() if known else None
    if row is None:
        raise NotFound("There is no such user.")
    if row.team_id not in {None, team_id}:
        raise Conflict("The user belongs to another team, which comes first to leave.")
    before = {"team_id": row.team_id, "team_role": row.team_role}
    after = {"team_id": team_id, "team_role": role.value}
    if before != after:
        connection.execute(update(users).where(users.c.id == user_id).values(**after))
        record(connection, actor, action, f"user:{user_id}", before if row.team_id else None, after)


def _has_another_owner(connection: Connection, team_id: str, user_id: str) -> bool:
    """Whether the team has an owner beside the user. A disabled one can do nothing for it."""
    others = users.c.team_id == team_id, users.c.id != user_id, users.c.disabled_at.is_(None)
    query = select(users.c.id).where(*others, users.c.team_role == TeamRole.OWNER).limit(1)
    return connection.execute(query).first() is not None
