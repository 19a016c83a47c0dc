"""The table of links that work once: invitations, password resets, verifications of an address.

A row holds no secret: what a person gets is its signed id.
"""

import datetime as dt
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Index, Select, String, Table, insert, select, update

from gateway.db.tables import UtcDateTime, metadata, owner, users, utc_now
from gateway.ids import new_id


class Purpose(StrEnum):
    """What a link is for."""

    INVITATION = "invitation"
    RESET = "reset"
    VERIFICATION = "verification"


login_links = Table(
    "login_links",
    metadata,
    Column("id", String(40), primary_key=True),
    owner(),
    Column("purpose", String(20), nullable=False),
    # The address that the link was made for; it dies when its user has another one.
    Column("email", String(320), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("used_at", UtcDateTime),
    Index(None, "user_id", "id"),
    info={"prefix": "lnk"},
)


def create(
    connection: Connection, user_id: str, email: str, purpose: Purpose, expires_at: dt.datetime
) -> str:
    """The id of a new link. Earlier ones stay: others can ask for links, too."""
    link_id = new_id("lnk")
    row = {"id": link_id, "user_id": user_id, "purpose": purpose.value, "email": email}
    connection.execute(insert(login_links), {**row, "expires_at": expires_at})
    return link_id


def use(connection: Connection, link_id: str, purpose: Purpose) -> str | None:
    """The user of an unused link, all of whose links for this purpose are used from now on.

    None if it is not valid. Of simultaneous uses one succeeds.
    """
    address = select(users.c.email).where(
        users.c.id == login_links.c.user_id, users.c.disabled_at.is_(None)
    )
    unused = update(login_links).where(
        login_links.c.id == link_id,
        login_links.c.purpose == purpose.value,
        login_links.c.used_at.is_(None),
        login_links.c.expires_at > utc_now(),
        login_links.c.email == address.scalar_subquery(),
    )
    used = unused.values(used_at=utc_now()).returning(login_links.c.user_id)
    user_id: str | None = connection.execute(used).scalar_one_or_none()
    if user_id is not None:
        end(connection, user_id, purpose)
    return user_id


def end(connection: Connection, user_id: str, *purposes: Purpose) -> None:
    """End the unused links of a user for these purposes."""
    theirs = update(login_links).where(
        login_links.c.user_id == user_id,
        login_links.c.purpose.in_([purpose.value for purpose in purposes]),
        login_links.c.used_at.is_(None),
    )
    connection.execute(theirs.values(used_at=utc_now()))


def address_of(link_id: str) -> Select[Any]:
    """The query for the address that an unused link was made for; none if it has expired."""
    return select(login_links.c.email).where(
        login_links.c.id == link_id,
        login_links.c.used_at.is_(None),
        login_links.c.expires_at > utc_now(),
    )
