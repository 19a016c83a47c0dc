"""Users, with their role and plan."""

import datetime as dt
import re
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.accounts.audit import Actor, record
from gateway.accounts.lookup import PRINCIPAL_COLUMNS, to_principal
from gateway.accounts.principals import Principal, Raise, Role
from gateway.accounts.sessions import end_access
from gateway.db.engine import Database
from gateway.db.tables import for_user, users, utc_now
from gateway.errors import Conflict, Forbidden, InvalidRequest, NotFound
from gateway.ids import new_id, pattern

USER_ID = pattern("usr")
# The domain of the addresses that deleted users get: their own may be used again.
DELETED = "deleted.invalid"
# Without colons: HTTP Basic ends a name at the first one.
EMAIL = re.compile(r"[^@\s:]{1,64}@[^@\s:.]+(\.[^@\s:.]+)+")


MAX_RAISE = dt.timedelta(days=366)


class UserSearch(NamedTuple):
    """What is looked for; None is anything. `email` is a part of the address."""

    email: str | None = None
    role: Role | None = None
    plan: str | None = None
    disabled: bool | None = None

    def query(self) -> Select[Any]:
        """The query for these users, deleted ones excepted."""
        query = existing()
        if self.email is not None:
            query = query.where(users.c.email.contains(self.email.lower(), autoescape=True))
        if self.role is not None:
            query = query.where(users.c.role == self.role.value)
        if self.plan is not None:
            query = query.where(users.c.plan == self.plan)
        if self.disabled is not None:
            is_disabled = users.c.disabled_at.is_not(None)
            query = query.where(is_disabled if self.disabled else ~is_disabled)
        return query


EVERYBODY = UserSearch()


class Users:
    """The table of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, role: Role, plan: str, actor: Actor) -> Row[Any]:
        """A new user. Raises `InvalidRequest`, and `Conflict` if the e-mail address is in use."""
        email = address(email)
        try:
            user_id = await self._database.transact(
                lambda connection: insert_user(connection, email, role, plan, actor)
            )
        except IntegrityError as error:
            raise Conflict("There is a user with this e-mail address already.") from error
        return await self.get(user_id)

    async def get(self, user_id: str) -> Row[Any]:
        """The user with this id, unless they were deleted. Raises `NotFound`."""
        if not USER_ID.fullmatch(user_id):
            raise unknown()
        own = users.c.id == user_id, users.c.deleted_at.is_(None)
        return await self._one(for_user(select(users).where(*own), user_id))

    async def principal(self, user_id: str) -> Principal:
        """The user as a principal with all scopes. Raises `NotFound`, `Forbidden` if disabled."""
        own = users.c.email, users.c.disabled_at, *PRINCIPAL_COLUMNS
        row = await self._one(select(*own).where(users.c.id == user_id))
        if row.disabled_at is not None:
            raise Forbidden(f"The user {row.email} is disabled.")
        return to_principal(row, user_id)

    async def find(self, email: str) -> Row[Any]:
        """The user with this e-mail address. Raises `NotFound`."""
        return await self._one(select(users).where(users.c.email == email.strip().lower()))

    async def list(self, search: UserSearch = EVERYBODY) -> list[Row[Any]]:
        """The users that are looked for, the oldest first."""
        return list(await self._database.fetch(search.query().order_by(users.c.id)))

    async def change(
        self,
        user_id: str,
        actor: Actor,
        *,
        role: Role | None = None,
        plan: str | None = None,
        disabled: bool | None = None,
    ) -> Row[Any]:
        """Change the given fields, and return the user. A disabled user's records stay, and their
        sessions end.

        Raises `NotFound`, and `Conflict` if no active administrator would be left.
        """
        given = {"role": role and role.value, "plan": plan, "disabled": disabled}
        wanted = {name: value for name, value in given.items() if value is not None}
        await self.get(user_id)

        def write(connection: Connection) -> None:
            if disabled or role not in {None, Role.ADMIN}:
                require_other_admin(connection, user_id)
            own = users.c.id == user_id
            row = connection.execute(select(users).where(own).with_for_update()).one()
            now = {"role": row.role, "plan": row.plan, "disabled": row.disabled_at is not None}
            after = {name: value for name, value in wanted.items() if value != now[name]}
            if after:
                before = {name: now[name] for name in after}
                connection.execute(update(users).where(own).values(**_columns(after)))
                record(connection, actor, "change", f"user:{user_id}", before, after)
            if after.get("disabled"):
                end_access(connection, user_id, actor)

        await self._database.transact(write)
        return await self.get(user_id)

    async def raise_budget(self, user_id: str, raised: Raise | None, actor: Actor) -> Row[Any]:
        """Replace the raise of a user's budgets, None ends it, and return the user.

        Acts at the next call, on every replica. Raises `NotFound`, and `InvalidRequest` for a day
        that has passed or is too far away.
        """
        today = utc_now().date()
        latest = (today + MAX_RAISE).isoformat()
        if raised is not None and not today.isoformat() <= raised.until <= latest:
            message = "until: must be today (UTC) or later, within a year."
            raise InvalidRequest(message, param="until")
        await self.get(user_id)
        daily, monthly, until = raised or (None, None, None)
        values = {
            "raised_daily_nano_usd": daily,
            "raised_monthly_nano_usd": monthly,
            "raised_until": until,
        }

        def write(connection: Connection) -> None:
            own = users.c.id == user_id
            row = connection.execute(select(users).where(own).with_for_update()).one()
            before = {name: getattr(row, name) for name in values}
            if before != values:
                connection.execute(update(users).where(own).values(values))
                record(connection, actor, "raise", f"user:{user_id}", before, values)

        await self._database.transact(write)
        return await self.get(user_id)

    async def note_export(self, user_id: str, actor: Actor) -> None:
        """Record in the audit that everything about a user was handed over."""
        await self._database.transact(
            lambda connection: record(connection, actor, "export", f"user:{user_id}", None, None)
        )

    async def _one(self, statement: Any) -> Row[Any]:
        row = await self._database.fetch_one(statement)
        if row is None:
            raise unknown()
        return row


def require_other_admin(connection: Connection, user_id: str) -> None:
    """Raise `Conflict` if this user is the last active administrator.

    Locks all of them, in one order, so that two cannot go at the same time.
    """
    active = users.c.role == Role.ADMIN.value, users.c.disabled_at.is_(None)
    locked = select(users.c.id).where(*active).order_by(users.c.id).with_for_update()
    if connection.execute(locked).scalars().all() == [user_id]:
        raise Conflict("This is the last administrator: name another one first.")


def existing() -> Select[Any]:
    """The query for all users that were not deleted."""
    return select(users).where(users.c.deleted_at.is_(None))


def address(email: str) -> str:
    """An e-mail address as it is stored. Raises `InvalidRequest`."""
    email = email.strip().lower()
    if not (EMAIL.fullmatch(email) and email.isprintable()) or len(email) > 254:
        raise InvalidRequest(
            "An e-mail address such as jane@example.com is needed, without colons and "
            "invisible characters.",
            param="email",
        )
    if email.endswith(f"@{DELETED}"):
        raise InvalidRequest(f"{DELETED} is for deleted users.", param="email")
    return email


def insert_user(
    connection: Connection,
    email: str,
    role: Role,
    plan: str,
    actor: Actor,
    *,
    must_verify_email: bool = False,
) -> str:
    """The id of a new user, in the transaction of `connection`. Raises `IntegrityError`.

    A new user without an `actor.id` and an operator registered alone.
    """
    user_id = new_id("usr")
    given = {"role": role.value, "plan": plan}
    row = insert(users).values(id=user_id, email=email, **given, created_at=utc_now())
    connection.execute(row.values(must_verify_email=must_verify_email))
    record(connection, actor, "create", f"user:{user_id}", None, given)
    return user_id


def unknown() -> NotFound:
    """The error for a user that does not exist."""
    return NotFound("There is no such user; `python -m app users list` shows all.")


def _columns(values: dict[str, Any]) -> dict[str, Any]:
    """`values` as columns of the table, which has `disabled_at` instead of `disabled`."""
    if "disabled" not in values:
        return values
    rest = {name: value for name, value in values.items() if name != "disabled"}
    return {**rest, "disabled_at": utc_now() if values["disabled"] else None}
