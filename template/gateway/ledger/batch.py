"""What becomes of each entry of a transaction: decided in order, in memory, by what it has read."""

import datetime as dt
from collections import defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from gateway.errors import GenerationStopped, ServiceError
from gateway.ledger.budget import Alert, Balances, Blocked, accounts_of
from gateway.ledger.entries import Entry, Renew, Reserve, Settle, Values
from gateway.policy import Cap
from gateway.providers.base import Usage

OPEN = ("reserved", "sent")
# What it cost is known, if only that it was nothing.
KNOWN = ("settled", "released")

Result = ServiceError | Blocked | None


class AttemptRow(NamedTuple):
    """What the ledger holds of an attempt."""

    prediction_id: str
    user_id: str
    plan: str | None
    key_id: str | None
    model: str
    state: str
    bound_nano_usd: int
    cost_nano_usd: int
    day: str
    lease_until: dt.datetime

    @property
    def accounts(self) -> list[str]:
        """What it counts against; nothing if it was made before there were budgets."""
        return accounts_of(self.user_id, self.plan, self.key_id) if self.plan else []


class State(NamedTuple):
    """What counts for all entries of a transaction."""

    now: dt.datetime
    stopped: frozenset[tuple[str, str]]


class Settled(NamedTuple):
    """What was settled at a model; `cost_nano_usd` is what a correction added if it is one."""

    model: str
    usage: Usage
    cost_nano_usd: int


class LedgerBatch:
    """Decides entries one after the other, and collects the rows to write."""

    def __init__(self, state: State, held: dict[str, AttemptRow], sheet: Balances) -> None:
        self._state = state
        self._held = held
        self.sheet = sheet
        # By what each is about: of several that a statement is given for one, any could win.
        self.rows: dict[str, dict[Hashable, Values]] = defaultdict(dict)
        self.settled: list[Settled] = []
        self.quarantined: list[Values] = []
        self._stopped = set(state.stopped)
        self._broken: list[Alert] = []
        # Whose spending changed, on which day; each once, as calls of one user are many.
        self._spent: dict[tuple[tuple[Cap, ...], str], None] = {}

    def take(self, entry: Entry) -> Result:
        """Do what `entry` asks, or return why not."""
        if isinstance(entry, Settle):
            self._close(entry)
        elif isinstance(entry, Renew):
            self._keep(entry)
        else:
            try:
                self._open(entry)
            except (ServiceError, Blocked) as refused:
                return refused
        return None

    def alerts(self) -> list[Values]:
        """The rows of what the owner must hear of."""
        for caps, day in self._spent:
            self.sheet.look(caps, day)
        due = [*self.sheet.alerts.values(), *self._broken]
        return [{**alert._asdict(), "at": self._state.now} for alert in due]

    def _open(self, entry: Reserve) -> None:
        self._require_going(entry.targets)
        now, bound = self._state.now, entry.attempt["bound_nano_usd"]
        day = now.date().isoformat()
        self.sheet.reserve(entry.caps, day, bound)
        attempt = {**entry.attempt, "day": day, "opened_at": now, "lease_until": now + entry.lease}
        self.rows["open_attempt"][attempt["id"]] = attempt
        if entry.prediction:
            begun = {**entry.prediction, "day": day, "created_at": now}
            self.rows["open_prediction"][begun["id"]] = begun
        self._held[attempt["id"]] = AttemptRow(*(attempt[name] for name in AttemptRow._fields))

    def _require_going(self, targets: Sequence[str]) -> None:
        for target, kind in self._stopped:
            if target in targets:
                raise stopped(target, kind)

    def _keep(self, entry: Renew) -> None:
        held = self._held.get(entry.attempt_id)
        if held is None or held.state not in OPEN:
            return
        until = self._state.now + entry.lease
        self._held[entry.attempt_id] = held._replace(state="sent", lease_until=until)
        row = {"id": entry.attempt_id, "state": "sent", "remote_id": entry.remote_id}
        self.rows["keep_attempt"][entry.attempt_id] = {**row, "lease_until": until}

    def _close(self, entry: Settle) -> None:
        row, now = entry.attempt, self._state.now
        held = self._held.get(row["id"]) if row else None
        if entry.overdue and (not held or held.state not in OPEN or held.lease_until > now):
            return
        if entry.alert:
            self._broken.append(entry.alert)
        if row and held:
            self._settle(entry, row, held)
        if entry.prediction:
            # Once it has ended, it is not ended otherwise.
            ended = {**entry.prediction, "finished_at": now}
            self.rows["close_prediction"].setdefault(ended["id"], ended)

    def _settle(self, entry: Settle, row: Values, held: AttemptRow) -> None:
        """Once: what was settled stays; what was paid at its bound may be corrected."""
        cost = row["cost_nano_usd"]
        if held.state in OPEN:
            change = {"reserved": -held.bound_nano_usd, "spent": cost}
        elif held.state == "uncertain" and row["state"] in KNOWN:
            change = {"reserved": 0, "spent": cost - held.cost_nano_usd}
            self._correct(held.prediction_id, change["spent"])
        else:
            return
        self.sheet.change(held.accounts, held.day, **change)
        self.settled.append(Settled(held.model, entry.usage or Usage(), max(0, change["spent"])))
        self._spent[entry.caps, held.day] = None
        self.rows["close_attempt"][row["id"]] = {**row, "closed_at": self._state.now}
        self._held[row["id"]] = held._replace(state=row["state"], cost_nano_usd=cost)
        if cost > held.bound_nano_usd:
            reason = f"A call cost {cost} nano-dollars, and its bound was {held.bound_nano_usd}."
            self._quarantine(held, cost, reason)
        elif entry.broken:
            self._quarantine(held, cost, entry.broken)

    def _correct(self, prediction_id: str, by: int) -> None:
        """Add to what a prediction cost; several of its attempts may be corrected."""
        rows = self.rows["correct_prediction"]
        before = rows[prediction_id]["cost_nano_usd"] if prediction_id in rows else 0
        rows[prediction_id] = {"id": prediction_id, "cost_nano_usd": before + by}

    def _quarantine(self, held: AttemptRow, cost: int, reason: str) -> None:
        """A bound that was wrong once is wrong: no new calls until somebody has looked at it."""
        target, now = f"model:{held.model}", self._state.now
        row = {"target": target, "kind": "quarantined", "reason": reason, "running": False}
        self.quarantined.append({**row, "at": now})
        self._stopped.add((target, "quarantined"))
        details = {
            "model": held.model,
            "bound_nano_usd": held.bound_nano_usd,
            "cost_nano_usd": cost,
        }
        self._broken.append(Alert(f"bound:{held.model}:{now.date()}", "bound", details))


def stopped(target: str, kind: str) -> GenerationStopped:
    """What a client is told of a stop; its reason is the operator's."""
    what = {"service": "All generation"}.get(target, f"Generation by {target.partition(':')[2]}")
    why = "a call broke its bound" if kind == "quarantined" else "the operator stopped it"
    return GenerationStopped(f"{what} is stopped: {why}. Try again later.")
