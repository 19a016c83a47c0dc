"""Finds the user of a request by its access token."""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from app.auth.authenticator import no_keys
from gateway.accounts.logins import Logins
from gateway.accounts.lookup import to_principal
from gateway.accounts.password_checker import PasswordChecker
from gateway.accounts.passwords import Passwords
from gateway.accounts.principals import Principal, Scope
from gateway.accounts.signed_links import Links
from gateway.accounts.tokens import ACCESS, InvalidToken, KeyRing
from gateway.batcher import Batcher
from gateway.db.engine import Database
from gateway.errors import DatabaseUnavailable, InvalidCredentials
from gateway.mail import Mailer
from gateway.rate_limits.base import Limiter

VERIFY = (
    "Verify your e-mail address first: open the link that was sent to it, or ask for a new one "
    "with POST /auth/register."
)


class JwtAuthenticator:
    """Verifies the token, then looks its log-in up: a log-out ends access at once, everywhere.

    Requests that wait at the same time share one query. Its parts are those of `/auth`, too.
    """

    is_ambient = False

    def __init__(
        self,
        database: Database,
        limiter: Limiter,
        ring: KeyRing,
        checker: PasswordChecker,
        links: Links,
        mailer: Mailer,
    ) -> None:
        self.database = database
        self.limiter = limiter
        self.ring = ring
        self.checker = checker
        self.links = links
        self.mailer = mailer
        self.logins = Logins(database)
        self._passwords = Passwords(database)
        self._lookups: Batcher[str, Any] = Batcher(self._find, outage=DatabaseUnavailable)

    async def authenticate(self, authorization: str, address: str) -> Principal:
        claims, row = await self._read(authorization)
        expires_at = dt.datetime.fromtimestamp(claims["exp"], dt.UTC)
        return principal(row.user_id, row, expires_at)

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        email, password = fields.get("email", ""), fields.get("password", "")
        row = await self.check(email.strip().lower(), password, address)
        return principal(row.id, row)

    async def log_out(self, authorization: str, *, everywhere: bool) -> str:
        claims, row = await self._read(authorization)
        if not everywhere:
            await self.logins.end(row.user_id, claims["sid"])
        return str(row.user_id)

    async def with_key(self, key_id: str) -> Principal:
        raise no_keys()

    async def check(self, email: str, password: str, address: str) -> Any:
        """The user of an e-mail address and a password.

        An unknown address takes as long as a wrong password and has the same error. Raises
        `InvalidCredentials`, and `TooManyAttempts` before any hash.
        """
        if "\0" in email:  # No database looks for it.
            raise wrong()
        row = (await self._passwords.with_owners([email])).get(email)
        stored = row.hash if row else self.checker.no_account_hash
        if not await self.checker.is_right(email, password, stored, address) or row is None:
            raise wrong()
        return row

    async def _read(self, authorization: str) -> tuple[dict[str, Any], Any]:
        """The claims of an access token, and its log-in. Raises `InvalidCredentials`."""
        scheme, _, text = authorization.partition(" ")
        try:
            claims = self.ring.read(ACCESS, text.strip() if scheme.lower() == "bearer" else "")
        except InvalidToken as error:
            raise invalid() from error
        row = await self._lookups.submit(str(claims.get("sid")))
        if row is None or row.user_id != claims["sub"]:
            raise invalid()
        return claims, row

    async def _find(self, login_ids: list[str]) -> Sequence[Any]:
        rows = await self.logins.with_owners(set(login_ids))
        return [rows.get(login_id) for login_id in login_ids]


def principal(user_id: str, row: Any, expires_at: dt.datetime | None = None) -> Principal:
    """The principal of a user, without generation if the e-mail address is to be verified."""
    if not row.must_verify_email:
        return to_principal(row, user_id, expires_at=expires_at)
    scopes = frozenset(Scope) - {Scope.GENERATE}
    return to_principal(row, user_id, scopes, expires_at=expires_at, hint=VERIFY)


def wrong() -> InvalidCredentials:
    """The error for a log-in, whatever of it is wrong."""
    return InvalidCredentials(
        "E-mail address or password is wrong.", headers={"WWW-Authenticate": "Bearer"}
    )


def invalid() -> InvalidCredentials:
    """The error for a token that is not valid, for whatever reason."""
    return InvalidCredentials(
        "A valid access token is needed: Authorization: Bearer <token>. POST /auth/login answers "
        "one.",
        headers={"WWW-Authenticate": "Bearer"},
    )
