"""Links that work once and expire: invitations, password resets, verifications of an address."""

import datetime as dt
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from gateway.accounts import links as table
from gateway.accounts.links import Purpose
from gateway.accounts.tokens import InvalidToken, KeyRing
from gateway.db.engine import Database
from gateway.db.tables import utc_now
from gateway.errors import InvalidRequest

LASTS = {
    Purpose.INVITATION: dt.timedelta(days=7),
    Purpose.RESET: dt.timedelta(hours=1),
    Purpose.VERIFICATION: dt.timedelta(days=1),
}


class Link(NamedTuple):
    """A link for one person, who is shown what it does."""

    url: str
    expires_at: dt.datetime


class UnusedLink(NamedTuple):
    """A link that can be used, by its token, and the address that it was made for."""

    token: str
    purpose: Purpose
    email: str


class Links:
    """Makes links and reads their tokens.

    The token is in the fragment of the address, which browsers send to no server and which appears
    in no log.
    """

    def __init__(self, database: Database, ring: KeyRing, address: str) -> None:
        self._database = database
        self._ring = ring
        self._address = address.rstrip("/")

    async def create(self, user: Row[Any], purpose: Purpose) -> Link:
        """A link for a user; the one before for the same purpose ends."""
        return await self._database.transact(
            lambda connection: self.write(connection, user.id, user.email, purpose)
        )

    def write(self, connection: Connection, user_id: str, email: str, purpose: Purpose) -> Link:
        """As `create`, in the transaction of `connection`."""
        expires_at = utc_now() + LASTS[purpose]
        link_id = table.create(connection, user_id, email, purpose, expires_at)
        token = self._ring.sign(_kind(purpose), user_id, expires_at, lnk=link_id)
        return Link(f"{self._address}/auth/link#{purpose.value}={token}", expires_at)

    def read(self, token: str, *purposes: Purpose) -> tuple[Purpose, str]:
        """Purpose and id of a link by its token. Raises `InvalidRequest`."""
        for purpose in purposes:
            try:
                claims = self._ring.read(_kind(purpose), token)
            except InvalidToken:
                continue
            return purpose, str(claims.get("lnk"))
        raise not_valid()

    async def find(self, token: str) -> UnusedLink:
        """An unused link, which stays unused. Raises `InvalidRequest`."""
        purpose, link_id = self.read(token, *Purpose)
        row = await self._database.fetch_one(table.address_of(link_id))
        if row is None:
            raise not_valid()
        return UnusedLink(token, purpose, row.email)


def not_valid() -> InvalidRequest:
    """The error for a link that cannot be used, for whatever reason."""
    return InvalidRequest(
        "This link is not valid: it was used, has expired, or is incomplete. Ask for a new one.",
        param="token",
    )


def _kind(purpose: Purpose) -> str:
    return f"{purpose.value}+jwt"
