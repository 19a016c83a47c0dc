"""Registration and forgotten passwords: what anybody may ask for, without learning who is here."""

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from app.auth.jwt.accounts import Client, find, use_link
from app.auth.jwt.authenticator import JwtAuthenticator
from gateway.accounts import links, logins, passwords
from gateway.accounts.audit import Actor
from gateway.accounts.links import Purpose
from gateway.accounts.logins import Login
from gateway.accounts.principals import Role
from gateway.accounts.signed_links import Link, not_valid
from gateway.accounts.throttle import network_of
from gateway.accounts.users import address, insert_user

TEXTS = {
    Purpose.INVITATION: ("Your invitation", "Choose a password here"),
    Purpose.RESET: ("A new password", "Choose a new password here"),
    Purpose.VERIFICATION: ("Verify your e-mail address", "Verify your e-mail address here"),
}
UNWANTED = "If you did not ask for this, ignore this mail: nothing changes."


class Registration:
    """Accounts of people who come by themselves."""

    def __init__(self, parts: JwtAuthenticator) -> None:
        self._parts = parts

    async def request_reset(self, email: str, client: Client) -> None:
        """Send a link to the account, if there is one. The answer and its time do not tell."""
        if await self._admit(email, client):
            self._parts.mailer.do(self._send_reset(email))

    async def register(self, email: str, password: str, plan: str, client: Client) -> None:
        """Make an account whose address has to be verified; if there is one, send a reset link.

        The answer and its time do not tell which.
        """
        email = address(email)
        admitted = await self._admit(email, client)
        stored = await self._parts.checker.hash(password, client.address)
        if admitted:
            self._parts.mailer.do(self._make(email, stored, plan, client))

    async def verify(self, token: str, password: str, client: Client) -> Login:
        """Verify the address of an account by its link and its password, and log in.

        A person who registers with another's address has the password and no link; the owner of the
        address has the link and not the password.
        """
        parts = self._parts
        purpose, link_id = parts.links.read(token, Purpose.VERIFICATION)
        found = await parts.database.fetch_one(links.address_of(link_id))
        if found is None:
            raise not_valid()
        row = await parts.check(found.email, password, client.address)

        def write(connection: Connection) -> Login:
            use_link(connection, link_id, purpose)
            return logins.start(connection, row.id, version=row.token_version)

        return await parts.database.transact(write)

    async def _admit(self, email: str, client: Client) -> bool:
        attempts = self._parts.checker.attempts
        return await attempts.admit_mail(email, network_of(client.address))

    async def _send_reset(self, email: str) -> None:
        user = await find(self._parts.database, email)
        if user and user.disabled_at is None:
            link = await self._parts.links.create(user, Purpose.RESET)
            send_link(self._parts, user.email, Purpose.RESET, link)

    async def _make(self, email: str, stored: str, plan: str, client: Client) -> None:
        def write(connection: Connection) -> Link:
            actor = Actor(None, client.request_id)
            user_id = insert_user(connection, email, Role.USER, plan, actor, must_verify_email=True)
            passwords.store(connection, user_id, stored, actor)
            return self._parts.links.write(connection, user_id, email, Purpose.VERIFICATION)

        try:
            link = await self._parts.database.transact(write)
        except IntegrityError:  # There is such an account.
            await self._send_reset(email)
        else:
            send_link(self._parts, email, Purpose.VERIFICATION, link)


def send_link(parts: JwtAuthenticator, email: str, purpose: Purpose, link: Link) -> None:
    """Send a link to its address, where mail is set up."""
    subject, words = TEXTS[purpose]
    ends = f"{link.expires_at:%Y-%m-%d %H:%M} UTC"
    text = f"{words}, until {ends}:\n\n{link.url}\n\nThe link works once. {UNWANTED}\n"
    parts.mailer.send(email, subject, text)
