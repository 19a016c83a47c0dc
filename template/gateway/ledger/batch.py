"""Applies the entries of one transaction in order, in memory, and collects the rows to write."""

import datetime as dt
from collections import defaultdict
from collections.abc import Hashable
from typing import NamedTuple

from gateway.errors import GenerationStopped, InvalidCredentials, ServiceError
from gateway.ledger.budget import Alert, Balances, Blocked, accounts_of
from gateway.ledger.entries import Entry, Renew, Reserve, Settle, Values
from gateway.policy import Cap
from gateway.providers.base import Usage

OPEN = ("reserved", "sent")
# The states of an attempt whose cost is known, including a cost of nothing.
COST_KNOWN = ("settled", "released")

Result = ServiceError | Blocked | None


class AttemptRow(NamedTuple):
    """The columns of an attempt's row that a transaction reads. Costs are in nano-dollars."""

    prediction_id: str
    user_id: str
    plan: str | None
    key_id: str | None
    team_id: str | None
    model: str
    state: str
    bound_nano_usd: int
    cost_nano_usd: int
    day: str
    lease_until: dt.datetime

    @property
    def accounts(self) -> list[str]:
        """The accounts it counts against; none for rows that are older than budgets."""
        if not self.plan:
            return []
        return accounts_of(self.user_id, self.plan, self.key_id, self.team_id)


class LedgerState(NamedTuple):
    """The database's time, the stops in force (pairs of a target and a kind), and those users of
    the entries who are being deleted.
    """

    now: dt.datetime
    stopped: frozenset[tuple[str, str]]
    deleted: frozenset[str]


class Settled(NamedTuple):
    """The settlement of one attempt, for the metrics.

    `cost_nano_usd` is the cost; for a correction, what it added to the cost.
    """

    model: str
    usage: Usage
    cost_nano_usd: int


class LedgerBatch:
    """Applies entries one after the other, and collects the rows to write."""

    def __init__(
        self, state: LedgerState, attempts: dict[str, AttemptRow], balances: Balances
    ) -> None:
        self._state = state
        self._attempts = attempts
        self.balances = balances
        # By statement and by id, so that a statement gets one row for an id: of several, the
        # database might apply any.
        self.rows: dict[str, dict[Hashable, Values]] = defaultdict(dict)
        self.settled: list[Settled] = []
        self.quarantined: list[Values] = []
        self._stopped = set(state.stopped)
        self._alerts: list[Alert] = []
        # The caps and days whose spending changed: a set that keeps its order.
        self._spent: dict[tuple[tuple[Cap, ...], str], None] = {}

    def apply(self, entry: Entry) -> Result:
        """Apply `entry`. Returns None, or the error that refuses it."""
        if isinstance(entry, Settle):
            self._settle(entry)
        elif isinstance(entry, Renew):
            self._renew(entry)
        else:
            try:
                self._reserve(entry)
            except (ServiceError, Blocked) as refused:
                return refused
        return None

    def alerts(self) -> list[Values]:
        """The rows of the alerts that the entries caused."""
        for caps, day in self._spent:
            self.balances.collect_alerts(caps, day)
        due = [*self.balances.alerts.values(), *self._alerts]
        return [{**alert._asdict(), "at": self._state.now} for alert in due]

    def _reserve(self, entry: Reserve) -> None:
        for target, kind in self._stopped:
            if target in entry.targets:
                raise stopped(target, kind)
        if entry.attempt["user_id"] in self._state.deleted:  # Admitted before the deletion began.
            raise InvalidCredentials("The user of this credential was deleted.")
        now, max_cost = self._state.now, entry.attempt["bound_nano_usd"]
        day = now.date().isoformat()
        self.balances.reserve(entry.caps, day, max_cost)
        row = {**entry.attempt, "day": day, "opened_at": now, "lease_until": now + entry.lease}
        self.rows["insert_attempt"][row["id"]] = row
        if entry.prediction:
            prediction = {**entry.prediction, "day": day, "created_at": now}
            self.rows["insert_prediction"][prediction["id"]] = prediction
        self._attempts[row["id"]] = AttemptRow(*(row[name] for name in AttemptRow._fields))

    def _renew(self, entry: Renew) -> None:
        attempt = self._attempts.get(entry.attempt_id)
        if attempt is None or attempt.state not in OPEN:
            return
        until = self._state.now + entry.lease
        self._attempts[entry.attempt_id] = attempt._replace(state="sent", lease_until=until)
        row = {"id": entry.attempt_id, "state": "sent", "remote_id": entry.remote_id}
        self.rows["renew_attempt"][entry.attempt_id] = {**row, "lease_until": until}

    def _settle(self, entry: Settle) -> None:
        row, now = entry.attempt, self._state.now
        attempt = self._attempts.get(row["id"]) if row else None
        if entry.overdue and (
            not attempt or attempt.state not in OPEN or attempt.lease_until > now
        ):
            return
        if entry.alert:
            self._alerts.append(entry.alert)
        if row and attempt:
            self._settle_attempt(entry, row, attempt)
        if entry.prediction:
            # The first end of a prediction counts.
            finished = {**entry.prediction, "finished_at": now}
            self.rows["finish_prediction"].setdefault(finished["id"], finished)

    def _settle_attempt(self, entry: Settle, row: Values, attempt: AttemptRow) -> None:
        """Idempotent. A settlement at the maximum can be corrected once the cost is known."""
        cost = row["cost_nano_usd"]
        if attempt.state in OPEN:
            change = {"reserved": -attempt.bound_nano_usd, "spent": cost}
        elif attempt.state == "uncertain" and row["state"] in COST_KNOWN:
            change = {"reserved": 0, "spent": cost - attempt.cost_nano_usd}
            self._correct_prediction(attempt.prediction_id, change["spent"])
        else:
            return
        self.balances.change(attempt.accounts, attempt.day, **change)
        usage = entry.usage or Usage()
        self.settled.append(Settled(attempt.model, usage, max(0, change["spent"])))
        self._spent[entry.caps, attempt.day] = None
        self.rows["settle_attempt"][row["id"]] = {**row, "closed_at": self._state.now}
        self._attempts[row["id"]] = attempt._replace(state=row["state"], cost_nano_usd=cost)
        most = attempt.bound_nano_usd
        if cost > most:
            reason = f"A call cost {cost} nano-dollars, and its maximum was {most}."
            self._quarantine(attempt, cost, reason)
        elif entry.exceeded:
            self._quarantine(attempt, cost, entry.exceeded)

    def _correct_prediction(self, prediction_id: str, by: int) -> None:
        """Add nano-dollars to a prediction's cost; several of its attempts may be corrected."""
        rows = self.rows["correct_prediction"]
        before = rows[prediction_id]["cost_nano_usd"] if prediction_id in rows else 0
        rows[prediction_id] = {"id": prediction_id, "cost_nano_usd": before + by}

    def _quarantine(self, attempt: AttemptRow, cost: int, reason: str) -> None:
        """Stop the model until the operator starts it again: its declared maximum was wrong."""
        target, now = f"model:{attempt.model}", self._state.now
        row = {"target": target, "kind": "quarantined", "reason": reason, "running": False}
        self.quarantined.append({**row, "at": now})
        self._stopped.add((target, "quarantined"))
        details = {
            "model": attempt.model,
            "bound_nano_usd": attempt.bound_nano_usd,
            "cost_nano_usd": cost,
        }
        self._alerts.append(Alert(f"bound:{attempt.model}:{now.date()}", "bound", details))


def stopped(target: str, kind: str) -> GenerationStopped:
    """The client's error for a stop. The operator's reason is not part of it."""
    what = {"service": "All generation"}.get(target, f"Generation by {target.partition(':')[2]}")
    quarantined = kind == "quarantined"
    why = "a call exceeded its maximum" if quarantined else "the operator stopped it"
    return GenerationStopped(f"{what} is stopped: {why}. Try again later.")
