"""One transaction of the ledger: under one lock, entries are decided in order and written at once.

Whoever holds the lock of the policies' row may change accounts: so budgets are exact over all
processes, and no two transactions can wait for each other. It costs a few statements, however
many entries share them.
"""

import datetime as dt
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Executable,
    Insert,
    Select,
    Table,
    Update,
    and_,
    case,
    insert,
    select,
    true,
    update,
)

from app.db.engine import Database
from app.db.tables import accounts, alerts, attempts, policies, predictions, stops
from app.errors import GenerationStopped, ServiceError
from app.guard.budget import Alert, Blocked, Key, Sheet, accounts_of, periods
from app.guard.entries import Closing, Entry, Keeping, Opening, Values

OPEN = ("reserved", "sent")
OPENED_PREDICTION = (
    *("id", "user_id", "request_id", "idempotency_key", "kind", "model", "provider", "status"),
    *("input", "input_tokens", "output_tokens", "microseconds", "cost_nano_usd", "day"),
    "created_at",
)
OPENED_ATTEMPT = (
    *("id", "prediction_id", "user_id", "number", "provider", "model", "state", "bound_nano_usd"),
    *("cost_nano_usd", "price", "plan", "key_id", "day", "opened_at", "lease_until"),
)
KEPT_ATTEMPT = ("state", "remote_id", "lease_until")
CLOSED_ATTEMPT = ("state", "cost_nano_usd", "remote_id", "closed_at")
CLOSED_PREDICTION = (
    *("served_model", "provider", "status", "outcome", "output", "error", "input_tokens"),
    *("output_tokens", "microseconds", "cost_nano_usd", "latency_ms", "finished_at"),
)
SUMS = ("spent_nano_usd", "reserved_nano_usd")

Result = ServiceError | Blocked | None


class Held(NamedTuple):
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
    version: str
    stopped: frozenset[tuple[str, str]]


class Posting:
    """Writes entries. `version` is that of the policy by which this process decides."""

    def __init__(self, database: Database, version: str, percents: Sequence[int]) -> None:
        self._database = database
        self._version = version
        self._percents = percents
        now = database.microseconds.label("now")
        self._lock = (
            select(policies.c.version, now, stops.c.target, stops.c.kind, database.bounded_wait)
            .select_from(policies.outerjoin(stops, true()))
            .where(policies.c.id == 1)
            .with_for_update(of=policies)
        )
        self._held = _reading(database, attempts, ["id"], ["id", *Held._fields])
        self._sums = _reading(database, accounts, ["name", "period"], ["name", "period", *SUMS])
        # In the order in which they run.
        self._statements: dict[str, Executable] = {
            "open_prediction": _inserting(database, predictions, OPENED_PREDICTION),
            "open_attempt": _inserting(database, attempts, OPENED_ATTEMPT),
            "keep_attempt": _updating(database, attempts, ["id"], KEPT_ATTEMPT),
            "close_attempt": _updating(database, attempts, ["id"], CLOSED_ATTEMPT),
            "close_prediction": _updating(database, predictions, ["id"], CLOSED_PREDICTION).where(
                predictions.c.status == "running"
            ),
            "correct_prediction": _correcting(database),
            "update_account": _updating(database, accounts, ["name", "period"], SUMS),
            "insert_account": _inserting(database, accounts, ("name", "period", *SUMS)),
        }

    def write(self, connection: Connection, entries: Sequence[Entry]) -> list[Result]:
        """What became of each entry: None, or why it was refused."""
        state = _state(connection.execute(self._lock).all())
        held = self._read_held(connection, entries)
        sheet = Sheet(self._read_sums(connection, _keys(entries, held, state)), self._percents)
        turn = Turn(state, state.version == self._version, held, sheet)
        results = [turn.take(entry) for entry in entries]
        self._write(connection, turn)
        return results

    def _read_held(self, connection: Connection, entries: Sequence[Entry]) -> dict[str, Held]:
        ids = [{"id": name} for name in map(_closed, entries) if name]
        rows = self._database.execute_rows(connection, self._held, ids) if ids else ()
        return {row.id: Held._make(row[1:]) for row in rows}

    def _read_sums(self, connection: Connection, keys: Sequence[Key]) -> dict[Key, tuple[int, int]]:
        wanted = [{"name": name, "period": period} for name, period in keys]
        rows = self._database.execute_rows(connection, self._sums, wanted) if wanted else ()
        return {(row.name, row.period): (row.spent_nano_usd, row.reserved_nano_usd) for row in rows}

    def _write(self, connection: Connection, turn: "Turn") -> None:
        for (name, period), account in turn.sheet.changes():
            sums = dict(zip(SUMS, (account.spent, account.reserved), strict=True))
            row = {"name": name, "period": period, **sums}
            turn.rows["insert_account" if account.was is None else "update_account"].append(row)
        with self._database.unread(connection):
            for name, statement in self._statements.items():
                if turn.rows[name]:
                    self._database.execute_rows(connection, statement, turn.rows[name])
        _insert_new(connection, alerts, "id", turn.alerts())
        _insert_new(connection, stops, "target", turn.quarantined, stops.c.kind == "quarantined")


class Turn:
    """Decides entries one after the other, and collects the rows to write."""

    def __init__(self, state: State, current: bool, held: dict[str, Held], sheet: Sheet) -> None:
        self._state = state
        self._current = current
        self._held = held
        self.sheet = sheet
        self.rows: dict[str, list[Values]] = defaultdict(list)
        self.quarantined: list[Values] = []
        self._broken: list[Alert] = []

    def take(self, entry: Entry) -> Result:
        """Do what `entry` asks, or return why not."""
        if isinstance(entry, Closing):
            self._close(entry)
        elif isinstance(entry, Keeping):
            self._keep(entry)
        else:
            try:
                self._open(entry)
            except (ServiceError, Blocked) as refused:
                return refused
        return None

    def alerts(self) -> list[Values]:
        """The rows of what the owner must hear of."""
        due = [*self.sheet.alerts.values(), *self._broken]
        return [{**alert._asdict(), "at": self._state.now} for alert in due]

    def _open(self, entry: Opening) -> None:
        self._require_going(entry.targets)
        now, bound = self._state.now, entry.attempt["bound_nano_usd"]
        day = now.date().isoformat()
        self.sheet.reserve(entry.caps, day, bound)
        attempt = {**entry.attempt, "day": day, "opened_at": now, "lease_until": now + entry.lease}
        self.rows["open_attempt"].append(attempt)
        if entry.prediction:
            self.rows["open_prediction"].append({**entry.prediction, "day": day, "created_at": now})
        self._held[attempt["id"]] = Held(*(attempt[name] for name in Held._fields))

    def _require_going(self, targets: Sequence[str]) -> None:
        if not self._current:
            raise GenerationStopped(
                "This replica has another version of the policy files than the newest one; "
                "try again.",
                retry_after=1,
            )
        for target, kind in self._state.stopped:
            if target in targets:
                raise stopped(target, kind)

    def _keep(self, entry: Keeping) -> None:
        held = self._held.get(entry.attempt_id)
        if held is None or held.state not in OPEN:
            return
        until = self._state.now + entry.lease
        self._held[entry.attempt_id] = held._replace(state="sent", lease_until=until)
        row = {"id": entry.attempt_id, "state": "sent", "remote_id": entry.remote_id}
        self.rows["keep_attempt"].append({**row, "lease_until": until})

    def _close(self, entry: Closing) -> None:
        row, now = entry.attempt, self._state.now
        held = self._held.get(row["id"]) if row else None
        if entry.overdue and (not held or held.state not in OPEN or held.lease_until > now):
            return
        if row and held:
            self._settle(entry, row, held)
        if entry.prediction:
            self.rows["close_prediction"].append({**entry.prediction, "finished_at": now})

    def _settle(self, entry: Closing, row: Values, held: Held) -> None:
        """Once: what was settled stays; what was paid at its bound may be corrected."""
        cost = row["cost_nano_usd"]
        if held.state in OPEN:
            change = {"reserved": -held.bound_nano_usd, "spent": cost}
        elif held.state == "uncertain" and row["state"] == "settled":
            change = {"reserved": 0, "spent": cost - held.cost_nano_usd}
            correction = {"id": held.prediction_id, "cost_nano_usd": change["spent"]}
            self.rows["correct_prediction"].append(correction)
        else:
            return
        self.sheet.change(held.accounts, held.day, **change)
        self.sheet.look(entry.caps, held.day)
        self.rows["close_attempt"].append({**row, "closed_at": self._state.now})
        self._held[row["id"]] = held._replace(state=row["state"], cost_nano_usd=cost)
        if cost > held.bound_nano_usd:
            self._quarantine(held, cost)

    def _quarantine(self, held: Held, cost: int) -> None:
        """A bound that was wrong once is wrong: no new calls until somebody has looked at it."""
        target, now = f"model:{held.model}", self._state.now
        reason = f"A call cost {cost} nano-dollars, and its bound was {held.bound_nano_usd}."
        row = {"target": target, "kind": "quarantined", "reason": reason, "running": False}
        self.quarantined.append({**row, "at": now})
        details = {
            "model": held.model,
            "bound_nano_usd": held.bound_nano_usd,
            "cost_nano_usd": cost,
        }
        self._broken.append(Alert(f"bound:{held.model}:{now.date()}", "bound", details))


def stopped(target: str, kind: str) -> GenerationStopped:
    """What a client is told of a stop; its reason is the operator's."""
    what = {"service": "All generation"}.get(target, f"Generation by {target.partition(':')[2]}")
    why = "its cost was above its bound" if kind == "quarantined" else "the operator stopped it"
    return GenerationStopped(f"{what} is stopped: {why}. Try again later.")


def _state(rows: Sequence[Any]) -> State:
    first = rows[0]
    now = dt.datetime.fromtimestamp(first.now / 1e6, dt.UTC)
    stopped_now = frozenset((row.target, row.kind) for row in rows if row.target)
    return State(now, first.version, stopped_now)


def _closed(entry: Entry) -> str | None:
    """The attempt that an entry is about, unless it opens one."""
    if isinstance(entry, Keeping):
        return entry.attempt_id
    return entry.attempt["id"] if isinstance(entry, Closing) and entry.attempt else None


def _keys(entries: Sequence[Entry], held: Mapping[str, Held], state: State) -> list[Key]:
    """The accounts that the entries are about, each once."""
    today = state.now.date().isoformat()
    keys: dict[Key, None] = {}
    for entry in entries:
        if isinstance(entry, Opening):
            names, day = [cap.account for cap in entry.caps], today
        elif attempt := held.get(_closed(entry) or ""):
            names, day = attempt.accounts, attempt.day
        else:
            continue
        keys |= dict.fromkeys((name, period) for name in names for period in periods(day))
    return list(keys)


def _reading(
    database: Database, table: Table, by: Sequence[str], names: Sequence[str]
) -> Select[Any]:
    rows = database.rows([table.c[name] for name in by])
    same = and_(*(table.c[name] == rows.c[name] for name in by))
    return select(*(table.c[name] for name in names)).join_from(table, rows, same)


def _inserting(database: Database, table: Table, names: Sequence[str]) -> Insert:
    rows = database.rows([table.c[name] for name in names])
    return insert(table).from_select(names, select(*rows.c))


def _updating(database: Database, table: Table, by: Sequence[str], names: Sequence[str]) -> Update:
    rows = database.rows([table.c[name] for name in (*by, *names)])
    values: dict[str, Any] = {name: rows.c[name] for name in names}
    if "output" in values:  # An answer that comes after its record was erased is not kept.
        values["output"] = case((table.c.erased_at.is_(None), values["output"]))
    same = (table.c[name] == rows.c[name] for name in by)
    return update(table).where(*same).values(values)


def _correcting(database: Database) -> Update:
    rows = database.rows([predictions.c.id, predictions.c.cost_nano_usd])
    cost = predictions.c.cost_nano_usd + rows.c.cost_nano_usd
    return update(predictions).where(predictions.c.id == rows.c.id).values(cost_nano_usd=cost)


def _insert_new(
    connection: Connection, table: Table, name: str, rows: Sequence[Values], *conditions: Any
) -> None:
    """Insert the rows that are not there by `name`, each once."""
    wanted = {row[name]: row for row in rows}
    if not wanted:
        return
    known = select(table.c[name]).where(table.c[name].in_(list(wanted)), *conditions)
    there = set(connection.execute(known).scalars())
    if missing := [row for key, row in wanted.items() if key not in there]:
        connection.execute(insert(table), missing)
