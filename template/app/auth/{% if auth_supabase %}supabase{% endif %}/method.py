"""The log-in: tokens of Supabase in the header, and its log-in with a password for browsers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.auth.authenticator import no_keys
from gateway.accounts.lookup import to_principal
from gateway.accounts.principals import Principal, Scope
from gateway.accounts.sessions import Sessions, digest
from gateway.accounts.supabase_tokens import Account, Verifier, invalid
from gateway.accounts.supabase_users import SupabaseUsers, roles_of
from gateway.batcher import Batcher
from gateway.db.engine import Database
from gateway.db.tables import utc_now
from gateway.errors import DatabaseUnavailable, Forbidden, InvalidCredentials
from gateway.http.web import post_json
from gateway.policy import load

NO_KEY = "This service signs in no browser: SUPABASE_PUBLISHABLE_KEY is not set."


class SupabaseMethod:
    """Finds the user of an account by its subject. An account that is new gets a user."""

    is_ambient = False

    def __init__(
        self,
        database: Database,
        verifier: Verifier,
        base: str,
        key: str,
        policy_dir: Path,
        *,
        is_open: bool,
    ) -> None:
        self._users = SupabaseUsers(database)
        self._sessions = Sessions(database)
        self._verifier = verifier
        self._base = base
        self._key = key
        self._policy_dir = policy_dir
        self._is_open = is_open
        self._lookups: Batcher[str, Any] = Batcher(self._find, outage=DatabaseUnavailable)

    async def authenticate(self, authorization: str, address: str) -> Principal:
        scheme, _, text = authorization.partition(" ")
        token = text.strip()
        if scheme.lower() != "bearer" or not token:
            raise invalid()
        # A token of Supabase has three parts; that of a program of this machine has one.
        return await (self._of_account(token) if "." in token else self._of_session(token))

    async def sign_in(self, fields: Mapping[str, str], address: str) -> Principal:
        if not self._key:
            raise Forbidden(NO_KEY)
        # Supabase counts attempts by the address that it sees.
        given = {"email": fields.get("email", ""), "password": fields.get("password", "")}
        url = f"{self._base}/token?grant_type=password"
        status, answer = await post_json(url, {"apikey": self._key}, given)
        token = answer.get("access_token")
        if status != 200 or not isinstance(token, str):
            raise InvalidCredentials("E-mail address or password is wrong.")
        # The session is this service's own, and lasts longer than the token.
        return replace(await self._of_account(token), expires_at=None)

    async def log_out(self, authorization: str, *, everywhere: bool) -> None:
        """Supabase ends its own tokens."""

    async def with_key(self, key_id: str) -> Principal:
        raise no_keys()

    async def _of_account(self, token: str) -> Principal:
        account = await self._verifier.read(token)
        row = await self._lookups.submit(account.subject)
        if row is None:
            if not (self._is_open or account.role):
                raise Forbidden("This account is not admitted. Ask the operator of this service.")
            plan = next(iter(load(self._policy_dir).plans))
            row = await self._users.create(account.subject, account.email, account.role, plan)
        if row.disabled_at is not None:
            raise invalid()
        return await self._with_role(account, row)

    async def _with_role(self, account: Account, row: Any) -> Principal:
        if roles_of(row, account.role) != (row.role, row.token_role):
            row = await self._users.change_role(account.subject, account.role)
        return to_principal(row, row.user_id, expires_at=account.expires_at)

    async def _of_session(self, token: str) -> Principal:
        found = await self._sessions.with_owners([digest(token)])
        row = found.get(digest(token))
        if row is None or row.expires_at <= utc_now():
            raise invalid()
        scopes = frozenset(map(Scope, row.scopes))
        return to_principal(row, row.user_id, scopes, expires_at=row.expires_at)

    async def _find(self, subjects: list[str]) -> Sequence[Any]:
        rows = await self._users.with_subjects(set(subjects))
        return [rows.get(subject) for subject in subjects]
