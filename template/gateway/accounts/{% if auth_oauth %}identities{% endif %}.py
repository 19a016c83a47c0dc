"""Identities: which account of which provider is which user."""

import datetime as dt
import hashlib
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Row,
    String,
    Table,
    UniqueConstraint,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from gateway.accounts.audit import Actor, record
from gateway.accounts.principals import Role
from gateway.accounts.users import address
from gateway.db.engine import Database
from gateway.db.tables import UtcDateTime, metadata, users, utc_now
from gateway.errors import Conflict, Forbidden
from gateway.ids import new_id

# A user that an administrator made, and an account that OAUTH_ALLOWED or REGISTRATION admits.
INVITED, LISTED = "invitation", "list"

identities = Table(
    "identities",
    metadata,
    Column("id", String(40), primary_key=True),
    # "github", or the address of an OpenID Connect issuer; the subject is its name of the account.
    Column("provider", String(255), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("user_id", String(40), ForeignKey("users.id"), nullable=False, index=True),
    Column("admitted_by", String(20), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_used_at", UtcDateTime, nullable=False),
    UniqueConstraint("provider", "subject"),
    info={"prefix": "idn"},
)
# The states of answered sign-ins, until they expire: an answer counts once.
used_states = Table(
    "used_states",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("expires_at", UtcDateTime, nullable=False, index=True),
)


class Profile(NamedTuple):
    """An account at a provider, with an e-mail address that the provider has verified.

    The domain is that of the account's organisation, or of the address; empty for none.
    """

    provider: str
    subject: str
    email: str
    domain: str
    organisations: frozenset[str]


class Identities:
    """The table of identities."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def use_state(self, state: str, expires_at: int) -> None:
        """Use up a state, which expires at this time in seconds. Raises `Forbidden` if it was."""
        until = dt.datetime.fromtimestamp(expires_at, dt.UTC)
        row = {"hash": hashlib.sha256(state.encode()).hexdigest(), "expires_at": until}

        def write(connection: Connection) -> None:
            connection.execute(delete(used_states).where(used_states.c.expires_at <= utc_now()))
            connection.execute(insert(used_states), row)

        try:
            await self._database.transact(write)
        except IntegrityError as error:
            raise Forbidden("This sign-in is over. Start again.") from error

    async def user_of(
        self, profile: Profile, plan: str, request_id: str, *, is_listed: bool
    ) -> str:
        """The id of the user of an account, who is made or linked at its first sign-in.

        An account is linked to a user of the same e-mail address whom an administrator has made,
        and to no user with another account. `is_listed`: it may make a user, with this plan.
        Raises `Forbidden`, and `Conflict`.
        """

        def write(connection: Connection) -> str:
            known = _known(connection, profile)
            if known is None:
                return _link(connection, profile, plan, request_id, is_listed=is_listed)
            if known.disabled_at is not None or not (is_listed or known.admitted_by == INVITED):
                raise not_admitted()
            used = update(identities).where(identities.c.id == known.id)
            connection.execute(used.values(last_used_at=utc_now()))
            return str(known.user_id)

        try:
            return await self._database.transact(write)
        except (IntegrityError, Conflict):  # Perhaps another request of this account was first.
            return await self._database.transact(write)


def not_admitted() -> Forbidden:
    """The error for an account that may make no user, or whose user is disabled."""
    return Forbidden("This account is not admitted. Ask the operator of this service.")


def _known(connection: Connection, profile: Profile) -> Row[Any] | None:
    query = (
        select(identities, users.c.disabled_at)
        .join_from(identities, users, users.c.id == identities.c.user_id)
        .where(identities.c.provider == profile.provider, identities.c.subject == profile.subject)
    )
    return connection.execute(query).one_or_none()


def _link(
    connection: Connection, profile: Profile, plan: str, request_id: str, *, is_listed: bool
) -> str:
    email = _email(profile)
    user = connection.execute(select(users).where(users.c.email == email)).one_or_none()
    if user is None:
        if not is_listed:
            raise not_admitted()
        user_id = _make_user(connection, email, plan, request_id)
    else:
        _require_free(connection, user)
        user_id = user.id
    now = utc_now()
    row = {
        "id": new_id("idn"),
        "provider": profile.provider,
        "subject": profile.subject,
        "user_id": user_id,
        "admitted_by": LISTED if user is None else INVITED,
        "created_at": now,
        "last_used_at": now,
    }
    connection.execute(insert(identities), row)
    after = {"user_id": user_id, "provider": profile.provider}
    record(connection, Actor(user_id, request_id), "link", f"identity:{row['id']}", None, after)
    return user_id


def _require_free(connection: Connection, user: Row[Any]) -> None:
    """Raise `Conflict` for a user with an account: another one of this address is not theirs."""
    if user.disabled_at is not None:
        raise not_admitted()
    taken = select(identities.c.id).where(identities.c.user_id == user.id).limit(1)
    if connection.execute(taken).one_or_none() is not None:
        raise Conflict(
            "There is a user with this e-mail address and another account. Sign in with the "
            "provider that you signed in with first."
        )


def _make_user(connection: Connection, email: str, plan: str, request_id: str) -> str:
    user_id = new_id("usr")
    given = {"role": Role.USER.value, "plan": plan}
    row = insert(users).values(id=user_id, email=email, **given, created_at=utc_now())
    connection.execute(row)
    record(connection, Actor(user_id, request_id), "create", f"user:{user_id}", None, given)
    return user_id


def _email(profile: Profile) -> str:
    """The address as the table has it. Raises `Forbidden` for one that becomes another one.

    Lower case turns some letters into ASCII, as the Kelvin sign into k.
    """
    email = address(profile.email)
    if email.isascii() and not profile.email.isascii():
        raise not_admitted()
    return email
