"""What the lookup of every log-in reads of a user, and the principal that it makes."""

from typing import Any

from sqlalchemy import select

from gateway.accounts.principals import Membership, Principal, Raise, Role, Scope, TeamRole
from gateway.db.tables import teams, users

# The query selects from `users`; with these columns it needs no other for the team.
PRINCIPAL_COLUMNS = (
    users.c.role,
    users.c.plan,
    users.c.team_id,
    users.c.team_role,
    users.c.raised_daily_nano_usd,
    users.c.raised_monthly_nano_usd,
    users.c.raised_until,
    users.c.token_version,
    select(teams.c.plan).where(teams.c.id == users.c.team_id).scalar_subquery().label("team_plan"),
)


def to_principal(
    row: Any, user_id: str, scopes: frozenset[Scope] = frozenset(Scope), **credential: Any
) -> Principal:
    """The user of a row with `PRINCIPAL_COLUMNS`; `credential` are other fields of `Principal`."""
    team = None
    if row.team_id is not None:
        team = Membership(row.team_id, row.team_plan, TeamRole(row.team_role))
    return Principal(
        user_id,
        Role(row.role),
        row.plan,
        scopes,
        team=team,
        raised=raise_of(row),
        token_version=row.token_version,
        **credential,
    )


def raise_of(row: Any) -> Raise | None:
    """The raise in a row of `users`, which may have ended; None without one."""
    if row.raised_until is None:
        return None
    return Raise(row.raised_daily_nano_usd, row.raised_monthly_nano_usd, row.raised_until)
