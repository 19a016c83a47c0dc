"""Users: who they are, their role and plan."""

import re
from typing import Any

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.auth.principal import Role
from app.db.engine import Database
from app.db.tables import users, utc_now
from app.errors import Conflict, InvalidRequest, NotFound
from app.ids import new_id

EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f.]+(\.[^@\s\x00-\x1f.]+)+")


class Users:
    """The table of users."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, email: str, role: Role, plan: str) -> Row[Any]:
        """A new user. Raises `InvalidRequest` and, for a taken address, `Conflict`."""
        email = email.strip().lower()
        if not EMAIL.fullmatch(email) or len(email) > 254:
            raise InvalidRequest("An e-mail address such as jane@example.com is needed.")
        user_id = new_id("usr")
        user = {"id": user_id, "email": email, "role": role.value, "plan": plan}
        try:
            row = insert(users).values(**user, created_at=utc_now())
            await self._database.transact(lambda connection: connection.execute(row))
        except IntegrityError as error:
            raise Conflict(f"There is a user {email} already.") from error
        return await self.get(user_id)

    async def get(self, user_id: str) -> Row[Any]:
        return await self._one(select(users).where(users.c.id == user_id))

    async def find(self, email: str) -> Row[Any]:
        return await self._one(select(users).where(users.c.email == email.strip().lower()))

    async def list(self) -> list[Row[Any]]:
        return list(await self._database.fetch(select(users).order_by(users.c.id)))

    async def change(self, email: str, **values: Any) -> None:
        """Set columns of one user. Raises `NotFound`."""
        user = await self.find(email)
        changed = update(users).where(users.c.id == user.id).values(**values)
        await self._database.transact(lambda connection: connection.execute(changed))

    async def disable(self, email: str) -> None:
        """End all access of a user; records and ledger stay."""
        await self.change(email, disabled_at=utc_now())

    async def _one(self, statement: Any) -> Row[Any]:
        row = await self._database.fetch_one(statement)
        if row is None:
            raise NotFound("There is no such user; `python -m app users list` shows all.")
        return row
