"""Budgets: the balances of accounts, the reservations of calls, and the alerts about spending.

An account is the service, a plan, a team, a user or an API key; its periods are UTC days and
months. Spent plus reserved never exceeds a cap: both are read and changed under one lock (see
`transaction`).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.accounts.principals import Principal
from gateway.db.tables import utc_now
from gateway.errors import BudgetExceeded, RequestTooLarge
from gateway.policy import Cap, Policy
from gateway.prices import NANO

AccountPeriod = tuple[str, str]
"""The name of an account, and a period: `2026-11-30` or `2026-11`."""


class Blocked(Exception):
    """Only open reservations are in the way. They may be settled for less, so waiting can help."""


class Alert(NamedTuple):
    """A message to the owner; sent once for each id."""

    id: str
    kind: str
    details: dict[str, Any]


@dataclass(slots=True)
class Account:
    """Spent and reserved nano-dollars of a period; `was` is the pair in the database."""

    spent: int
    reserved: int
    was: tuple[int, int] | None = None

    @property
    def changed(self) -> bool:
        """Whether the account differs from its row."""
        return (self.spent, self.reserved) != (self.was or (0, 0))


def caps_of(policy: Policy, principal: Principal) -> tuple[Cap, ...]:
    """The caps of every account that a call of `principal` counts against."""
    raised = principal.raised
    caps = policy.caps(principal.user_id, principal.plan, principal.team, raised)
    if principal.key_id is None:
        return caps
    own = principal.limits
    key = Cap(f"key:{principal.key_id}", own.daily_budget_nano_usd, own.monthly_budget_nano_usd)
    return (*caps, key)


def accounts_of(
    user_id: str, plan: str, key_id: str | None = None, team_id: str | None = None
) -> list[str]:
    """The names of the accounts that an attempt counts against."""
    team = [f"team:{team_id}"] if team_id else []
    key = [f"key:{key_id}"] if key_id else []
    return ["service", f"plan:{plan}", *team, f"user:{user_id}", *key]


def require_room(caps: Sequence[Cap], max_cost: int) -> None:
    """Raise `RequestTooLarge` if `max_cost`, in nano-dollars, is more than a whole budget."""
    today = utc_now().date().isoformat()
    for cap in caps:
        for most in cap.on(today):
            if most is not None and max_cost > most:
                raise RequestTooLarge(
                    f"This request can cost up to {usd(max_cost)} and a budget is {usd(most)}. "
                    "Send less, or ask for fewer output tokens."
                )


class Balances:
    """The accounts that a transaction changes.

    `percents` are the percentages of a cap that raise an alert.
    """

    def __init__(
        self, sums: Mapping[AccountPeriod, tuple[int, int]], percents: Sequence[int]
    ) -> None:
        self._accounts: defaultdict[AccountPeriod, Account] = defaultdict(lambda: Account(0, 0))
        self._accounts |= {key: Account(*pair, was=pair) for key, pair in sums.items()}
        self._percents = percents
        self.alerts: dict[str, Alert] = {}

    def reserve(self, caps: Sequence[Cap], day: str, max_cost: int) -> None:
        """Reserve `max_cost` nano-dollars in every account of `caps`, or in none.

        Raises `BudgetExceeded` where spending leaves too little, and `Blocked` where only open
        reservations do.
        """
        rows = list(self._rows(caps, day))
        for cap, key, account in rows:
            if cap is not None and account.spent + max_cost > cap:
                self._alert(key, 100, account.spent, cap)
                raise _exceeded(key, cap - account.spent, max_cost)
        for cap, _, account in rows:
            if cap is not None and account.spent + account.reserved + max_cost > cap:
                raise Blocked
        for _, _, account in rows:
            account.reserved += max_cost

    def change(self, names: Sequence[str], day: str, *, reserved: int, spent: int) -> None:
        """Add nano-dollars to the accounts `names`, for a day and its month."""
        for name in names:
            for period in periods(day):
                account = self._accounts[name, period]
                account.reserved += reserved
                account.spent += spent

    def collect_alerts(self, caps: Sequence[Cap], day: str) -> None:
        """Add the alerts that became due since the accounts were read."""
        for cap, key, account in self._rows(caps, day):
            before = account.was[0] if account.was else 0
            if not cap:
                continue
            for percent in self._percents:
                if before * 100 < percent * cap <= account.spent * 100:
                    self._alert(key, percent, account.spent, cap)

    def changes(self) -> Iterator[tuple[AccountPeriod, Account]]:
        """The accounts that differ from their rows."""
        return ((key, account) for key, account in self._accounts.items() if account.changed)

    def _rows(
        self, caps: Sequence[Cap], day: str
    ) -> Iterator[tuple[int | None, AccountPeriod, Account]]:
        for cap in caps:
            for most, period in zip(cap.on(day), periods(day), strict=True):
                key = cap.account, period
                yield most, key, self._accounts[key]

    def _alert(self, key: AccountPeriod, percent: int, spent: int, cap: int) -> None:
        account, period = key
        details = {
            "account": account,
            "period": period,
            "percent": percent,
            "spent_nano_usd": spent,
            "cap_nano_usd": cap,
        }
        alert = Alert(f"budget:{account}:{period}:{percent}", "budget", details)
        self.alerts[alert.id] = alert


def periods(day: str) -> tuple[str, str]:
    """The day, and its month."""
    return day, day[:7]


def usd(nano_usd: int) -> str:
    """Nano-dollars as a text in dollars."""
    return f"{nano_usd / NANO:.9f} USD"


def _exceeded(key: AccountPeriod, left: int, max_cost: int) -> BudgetExceeded:
    account, period = key
    kind = account.partition(":")[0]
    whose = {"user": "your", "team": "your team's", "key": "this API key's"}.get(
        kind, "the service's"
    )
    span = "month" if len(period) == len("2026-11") else "day"
    return BudgetExceeded(
        f"This request can cost up to {usd(max_cost)}, and {whose} budget for the {span} has "
        f"{usd(max(0, left))} left. Ask for less, or wait for the next {span} (UTC)."
    )
