"""Finds the user of a request: by its header `Authorization`, else by a browser session."""

from collections.abc import Mapping, Sequence
from typing import Any

from app.auth.port import Method
from gateway.accounts.lookup import to_principal
from gateway.accounts.principals import Principal, Scope
from gateway.accounts.sessions import Sessions, digest
from gateway.batcher import Batcher
from gateway.db.tables import utc_now
from gateway.errors import DatabaseUnavailable, Forbidden, InvalidCredentials
from gateway.http.cookies import CSRF_HEADER, cookie_of, is_csrf_token
from gateway.http.own_pages import SAFE_METHODS, OwnPages


class RequestAuthenticator:
    """Asks the chosen method about credentials, and the table of sessions about cookies.

    Reads the session at every request, so that its end counts at once on every replica. Requests
    that wait at the same time share one query.
    """

    def __init__(self, method: Method, sessions: Sessions, pages: OwnPages) -> None:
        self.method = method
        self.pages = pages
        self._sessions = sessions
        self._lookups: Batcher[str, Any] = Batcher(self._find, outage=DatabaseUnavailable)

    async def authenticate(
        self, method: str, headers: Mapping[str, str], address: str
    ) -> Principal:
        """The principal of a request. Raises as the method, and `Forbidden`."""
        authorization = headers.get("authorization")
        token = cookie_of(headers) if authorization is None else None
        if token and (session := await self.session(token)):
            if method not in SAFE_METHODS:
                self.require_csrf(headers, token)
            return await self._principal(session)
        if self.method.is_ambient and method not in SAFE_METHODS:
            self.pages.require_own_or_shared(method, headers)
        return await self.method.authenticate(authorization or "", address)

    async def session(self, token: str | None) -> Any:
        """The row of a valid session, with its user's e-mail, role, plan and team; else None."""
        row = await self._lookups.submit(digest(token)) if token else None
        return row if row is not None and row.expires_at > utc_now() else None

    def require_csrf(self, headers: Mapping[str, str], token: str, given: str = "") -> None:
        """Raise `Forbidden` unless a page of this service sent a request with a session's cookie.

        `given` is the token of a form; else the header has it.
        """
        self.pages.require_own(headers)
        if not is_csrf_token(given or headers.get(CSRF_HEADER, ""), token):
            raise Forbidden(
                "With the cookie of a session, what changes something needs the header "
                "X-CSRF-Token; GET /auth/session tells it."
            )

    async def _principal(self, session: Any) -> Principal:
        if session.key_id is not None:
            return await self.method.with_key(session.key_id)
        scopes = frozenset(map(Scope, session.scopes))
        return to_principal(session, session.user_id, scopes)

    async def _find(self, hashes: list[str]) -> Sequence[Any]:
        rows = await self._sessions.with_owners(set(hashes))
        return [rows.get(each) for each in hashes]


def no_keys() -> InvalidCredentials:
    """The error for the session of an API key, for methods without keys."""
    return InvalidCredentials("This session has ended; sign in again.")
