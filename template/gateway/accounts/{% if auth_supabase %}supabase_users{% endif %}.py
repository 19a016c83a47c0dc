"""Which account of Supabase is which user, and the roles that both sides gave."""

from collections.abc import Collection
from functools import cache
from typing import Any

from sqlalchemy import Column, Connection, Select, String, Table, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.accounts.audit import Actor, record
from gateway.accounts.lookup import PRINCIPAL_COLUMNS
from gateway.accounts.principals import Role
from gateway.accounts.users import address, insert_user
from gateway.db.engine import Database, Query
from gateway.db.tables import metadata, owner, users
from gateway.errors import InvalidRequest

# A reserved name (RFC 2606): nobody gets mail there.
NO_ADDRESS = "@supabase.invalid"
# The less a role may see and do, the earlier it is.
RESTRICTED_FIRST = (Role.USER, Role.AUDITOR, Role.ADMIN)

supabase_users = Table(
    "supabase_users",
    metadata,
    Column("subject", String(64), primary_key=True),
    owner(),
    # The role of `app_metadata` that the user's role follows, until an administrator changes it.
    Column("token_role", String(20), nullable=False),
)


class SupabaseUsers:
    """The table of accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def with_subjects(self, subjects: Collection[str]) -> dict[str, Any]:
        """The accounts with these subjects and their users, also disabled ones, by subject."""
        asked = [{"subject": subject} for subject in subjects]
        rows = await self._database.find(Query(_accounts(type(self._database)), asked))
        return {row.subject: row for row in rows}

    async def create(self, subject: str, email: str, role: Role | None, plan: str) -> Any:
        """The account and its new user. Idempotent.

        Never the user of the same e-mail address: Supabase may not have verified it. That user
        keeps the address, and the new one gets none.
        """
        for given in (_address(email), f"{subject}{NO_ADDRESS}".lower()):
            try:
                await self._database.transact(_creation(subject, given, role or Role.USER, plan))
                break
            except IntegrityError:  # The address is taken, or another request was first.
                if rows := await self.with_subjects([subject]):
                    return rows[subject]
        return (await self.with_subjects([subject]))[subject]

    async def change_role(self, subject: str, role: Role | None) -> Any:
        """The account, after its role was adjusted to that of its token."""

        def write(connection: Connection) -> None:
            query = _joined().where(supabase_users.c.subject == subject).with_for_update()
            row = connection.execute(query).one()
            wanted, followed = roles_of(row, role)
            own = users.c.id == row.user_id
            if wanted != row.role:
                connection.execute(update(users).where(own).values(role=wanted))
                before, after = {"role": row.role}, {"role": wanted}
                record(connection, Actor(), "change", f"user:{row.user_id}", before, after)
            mine = supabase_users.c.subject == subject
            connection.execute(update(supabase_users).where(mine).values(token_role=followed))

        await self._database.transact(write)
        return (await self.with_subjects([subject]))[subject]


def roles_of(row: Any, token_role: Role | None) -> tuple[str, str]:
    """What `role` and `token_role` of an account should be, for the role of its token.

    A user follows the token. After an administrator has set another role here, the more restrictive
    one counts.
    """
    if token_role is None:
        return row.role, row.token_role
    if row.role == row.token_role:
        return token_role.value, token_role.value
    return min(Role(row.role), token_role, key=RESTRICTED_FIRST.index).value, row.token_role


def _address(email: str) -> str:
    """The address as it is stored, or an empty text if it is none."""
    try:
        return address(email)
    except InvalidRequest:
        return ""


def _creation(subject: str, email: str, role: Role, plan: str) -> Any:
    def write(connection: Connection) -> None:
        given = email or f"{subject}{NO_ADDRESS}".lower()
        user_id = insert_user(connection, given, role, plan, Actor())
        row = {"subject": subject, "user_id": user_id, "token_role": role.value}
        connection.execute(insert(supabase_users), row)

    return write


def _joined() -> Select[Any]:
    columns = (supabase_users.c.subject, supabase_users.c.user_id, supabase_users.c.token_role)
    return select(*columns, *PRINCIPAL_COLUMNS, users.c.disabled_at).join_from(
        supabase_users, users, users.c.id == supabase_users.c.user_id
    )


@cache
def _accounts(database: type[Database]) -> Select[Any]:
    """The query for accounts with given subjects."""
    asked = database.rows([supabase_users.c.subject])
    return _joined().where(supabase_users.c.subject == asked["subject"])
