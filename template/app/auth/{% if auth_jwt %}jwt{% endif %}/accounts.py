"""What `/auth` does for accounts: log-ins, passwords and invitations."""

from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, update

from app.auth.jwt.authenticator import JwtAuthenticator
from gateway.accounts import links, logins, passwords
from gateway.accounts.audit import Actor, record
from gateway.accounts.links import Purpose
from gateway.accounts.logins import Login
from gateway.accounts.passwords import Passwords
from gateway.accounts.principals import Role
from gateway.accounts.signed_links import Link, Links, not_valid
from gateway.accounts.users import Users, address, insert_user
from gateway.db.engine import Database
from gateway.db.tables import users
from gateway.errors import Conflict, NotFound


class Client(NamedTuple):
    """Where a request comes from."""

    address: str
    request_id: str


class Accounts:
    """Accounts with a password."""

    def __init__(self, parts: JwtAuthenticator) -> None:
        self._parts = parts
        self._database = parts.database
        self._users = Users(parts.database)

    async def log_in(self, email: str, password: str, client: Client) -> Login:
        """A new log-in. Raises `InvalidCredentials`, and `TooManyAttempts` before any hash."""
        row = await self._parts.check(email, password, client.address)
        return await self._parts.logins.start(row.id, version=row.token_version)

    async def change_password(self, user_id: str, current: str, new: str, client: Client) -> Login:
        """Change the password: every log-in ends, and a new one starts."""
        user = await self._users.get(user_id)
        await self._parts.check(user.email, current, client.address)
        stored = await self._parts.checker.hash(new, client.address)

        def write(connection: Connection) -> Login:
            set_password(connection, user_id, stored, client, "change")
            return logins.start(connection, user_id)

        return await self._database.transact(write)

    async def accept(self, token: str, password: str, client: Client) -> Login:
        """Set the password by an invitation or a reset link, and log in.

        Raises `InvalidRequest` for a link that is not valid.
        """
        purpose, link_id = self._parts.links.read(token, Purpose.INVITATION, Purpose.RESET)
        stored = await self._parts.checker.hash(password, client.address)

        def write(connection: Connection) -> Login:
            user_id = use_link(connection, link_id, purpose)
            set_password(connection, user_id, stored, client, purpose.value)
            return logins.start(connection, user_id)

        return await self._database.transact(write)


async def invite(
    database: Database, made: Links, email: str, role: Role, plan: str, actor: Actor
) -> tuple[str, Link]:
    """The address of a user without a password, and the link to choose one.

    Invites again while there is no password; raises `Conflict` afterwards, and `InvalidRequest`.
    """
    email = address(email)
    user = await find(database, email)
    if user and await Passwords(database).with_owners([email]):
        raise Conflict("This user has a password already; a reset link gives a new one.")

    def write(connection: Connection) -> Link:
        user_id = user.id if user else insert_user(connection, email, role, plan, actor)
        record(connection, actor, "invite", f"user:{user_id}", None, None)
        return made.write(connection, user_id, email, Purpose.INVITATION)

    return email, await database.transact(write)


async def reset_link(database: Database, made: Links, email: str, actor: Actor) -> tuple[str, Link]:
    """The address of a user, and a link to a new password. Raises `NotFound`."""
    user = await Users(database).find(email)

    def write(connection: Connection) -> Link:
        record(connection, actor, "reset link", f"user:{user.id}", None, None)
        return made.write(connection, user.id, user.email, Purpose.RESET)

    return user.email, await database.transact(write)


async def find(database: Database, email: str) -> Row[Any] | None:
    """The user with this address, or None."""
    try:
        return await Users(database).find(email)
    except NotFound:
        return None


def use_link(connection: Connection, link_id: str, purpose: Purpose) -> str:
    """The user of a link, which is used from now on. Its address is verified, as the link came
    there. Raises `InvalidRequest`.
    """
    user_id = links.use(connection, link_id, purpose)
    if user_id is None:
        raise not_valid()
    verified = update(users).where(users.c.id == user_id).values(must_verify_email=False)
    connection.execute(verified)
    return user_id


def set_password(
    connection: Connection, user_id: str, stored: str, client: Client, action: str
) -> None:
    """Store a password; links that set one end."""
    actor = Actor(user_id, client.request_id)
    record(connection, actor, action, f"password:{user_id}", None, None)
    passwords.store(connection, user_id, stored, actor)
    links.end(connection, user_id, Purpose.INVITATION, Purpose.RESET)
