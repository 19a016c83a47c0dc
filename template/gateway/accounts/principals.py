"""Principals: authenticated users, and their permissions."""

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, Protocol

from gateway.errors import Forbidden


class Role(StrEnum):
    """A user's role. An `auditor` reads everything and changes nothing."""

    USER = "user"
    AUDITOR = "auditor"
    ADMIN = "admin"


class TeamRole(StrEnum):
    """A member's role in a team. An `owner` sees the team's usage and manages its members."""

    OWNER = "owner"
    MEMBER = "member"


class Scope(StrEnum):
    """A permission of a credential: call models, read its user's records, manage access."""

    GENERATE = "generate"
    READ = "read"
    ADMIN = "admin"


class KeyLimits(NamedTuple):
    """A credential's own limits, within those of its owner. None is no further limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_generations: int | None = None
    daily_budget_nano_usd: int | None = None
    monthly_budget_nano_usd: int | None = None


NO_LIMITS = KeyLimits()


class Membership(NamedTuple):
    """A user's membership in a team. `plan` is the team's, whose limits its members share."""

    team_id: str
    plan: str
    role: TeamRole


class Raise(NamedTuple):
    """Higher budgets of a user, in nano-dollars, up to the UTC day `until`, such as `2026-11-30`.

    None leaves the plan's budget.
    """

    daily: int | None
    monthly: int | None
    until: str


@dataclass(frozen=True, slots=True)
class Principal:
    """A user as authenticated for one request.

    `key_id` identifies the credential if it has its own `limits`. `expires_at` is the expiry of the
    credential; None if it has none. `credential_id` is the id of the API key, if there is one.
    `hint` says how to get a scope that is missing. `token_version` is the user's at the time, which
    changes when all that the user was given ends.
    """

    user_id: str
    role: Role
    plan: str
    scopes: frozenset[Scope]
    key_id: str | None = None
    limits: KeyLimits = NO_LIMITS
    expires_at: dt.datetime | None = None
    credential_id: str | None = None
    hint: str = ""
    team: Membership | None = None
    raised: Raise | None = None
    token_version: int | None = None

    @property
    def team_id(self) -> str | None:
        """The id of the user's team; None without one."""
        return self.team.team_id if self.team else None

    def require(self, scope: Scope) -> None:
        """Raise `Forbidden` unless the credential has `scope` and the role may use it."""
        if scope not in self.scopes:
            raise Forbidden(self.hint or f"This credential lacks the scope {scope.value!r}.")
        if self.role is Role.AUDITOR and scope is not Scope.READ:
            raise Forbidden("An auditor reads everything and changes nothing.")

    def require_grant(self, scopes: Iterable[Scope]) -> None:
        """Raise `Forbidden` unless the credential may make a key with these scopes."""
        if missing := set(scopes) - self.scopes:
            raise Forbidden(f"This credential cannot grant {', '.join(sorted(missing))}.")
        if self.key_id is not None:
            raise Forbidden(
                "A key with limits of its own makes no keys: they would go around them."
            )


class Authenticator(Protocol):
    """The chosen method of authentication."""

    async def authenticate(
        self, method: str, headers: Mapping[str, str], address: str
    ) -> Principal:
        """The principal of a request with `headers` from the client `address`.

        Raises `InvalidCredentials`; `TooManyAttempts` and `Forbidden` where the method has them.
        """
