"""One transaction of the ledger: under one lock, entries are decided in order and written at once.

Whoever holds the lock of the policies' row may change accounts: so budgets are exact over all
processes, and no two transactions can wait for each other. It costs a few statements, however
many entries share them.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    Executable,
    Insert,
    Select,
    Table,
    Update,
    case,
    insert,
    select,
    true,
    update,
)

from gateway.db.engine import Database, Query
from gateway.db.tables import (
    accounts,
    alerts,
    attempts,
    moment,
    policies,
    predictions,
    stops,
    utc_now,
)
from gateway.ledger.batch import AttemptRow, LedgerBatch, Result, Settled, State
from gateway.ledger.budget import Balances, Key, periods
from gateway.ledger.entries import Entry, Renew, Settle, Values

OPENED_PREDICTION = (
    *("id", "user_id", "request_id", "idempotency_key", "kind", "feature", "model", "provider"),
    "status",
    *("input", "input_tokens", "output_tokens", "microseconds", "cost_nano_usd", "day"),
    "created_at",
)
OPENED_ATTEMPT = (
    *("id", "prediction_id", "user_id", "number", "provider", "model", "state", "bound_nano_usd"),
    *("cost_nano_usd", "price", "plan", "key_id", "day", "opened_at", "lease_until"),
)
KEPT_ATTEMPT = ("state", "remote_id", "lease_until")
CLOSED_ATTEMPT = (
    *("state", "cost_nano_usd", "remote_id", "provider_status", "reason", "closed_at"),
)
CLOSED_PREDICTION = (
    *("served_model", "provider", "status", "outcome", "output", "error", "input_tokens"),
    *("output_tokens", "microseconds", "cached_input_tokens", "cache_write_tokens", "outputs"),
    *("cost_nano_usd", "latency_ms", "finished_at"),
)
SUMS = ("spent_nano_usd", "reserved_nano_usd")
QUARANTINED = stops.c.kind == "quarantined"
ACCOUNT = ("name", "period", *SUMS)


Sums = dict[Key, tuple[int, int]]
"""What accounts have spent and reserved."""


class Statements(NamedTuple):
    """What a transaction executes; `writing` by the name of its rows, in the order of execution."""

    lock: Executable
    held: Executable
    sums: Executable
    writing: Mapping[str, Executable]


class LedgerTransaction:
    """Writes entries. `percents` are the parts of a cap at which the owner is told."""

    def __init__(self, database: Database, percents: Sequence[int]) -> None:
        self._database = database
        self._percents = percents
        self._sql = _statements(type(database))

    def write(
        self, connection: Connection, entries: Sequence[Entry]
    ) -> tuple[list[Result], list[Settled]]:
        """What became of each entry: None, or why it was refused. And what was settled by them."""
        state, held, sums = self._read(connection, entries)
        sheet = Balances(sums, self._percents)
        turn = LedgerBatch(state, held, sheet)
        results = [turn.take(entry) for entry in entries]
        self._write(connection, turn)
        return results, turn.settled

    def _read(
        self, connection: Connection, entries: Sequence[Entry]
    ) -> tuple[State, dict[str, AttemptRow], Sums]:
        """What is known under the lock, the accounts of the likely keys in the same go."""
        likely = _keys(entries, {}, utc_now().date().isoformat())
        locked, found, summed = self._database.read(
            connection,
            [
                Query(self._sql.lock),
                Query(self._sql.held, [{"id": name} for name in map(_closed, entries) if name]),
                self._sums(likely),
            ],
        )
        state, held = _state(locked), {row.id: AttemptRow._make(row[1:]) for row in found}
        keys = _keys(entries, held, state.now.date().isoformat())
        if missed := [key for key in keys if key not in likely]:
            summed = [*summed, *self._database.read(connection, [self._sums(missed)])[0]]
        sums = {
            (row.name, row.period): (row.spent_nano_usd, row.reserved_nano_usd) for row in summed
        }
        return state, held, sums

    def _sums(self, keys: Iterable[Key]) -> Query:
        return Query(self._sql.sums, [{"name": name, "period": period} for name, period in keys])

    def _write(self, connection: Connection, turn: LedgerBatch) -> None:
        _insert_new(connection, alerts, "id", turn.alerts())
        _insert_new(connection, stops, "target", turn.quarantined, QUARANTINED)
        for key, account in turn.sheet.changes():
            row = dict(zip(ACCOUNT, (*key, account.spent, account.reserved), strict=True))
            turn.rows["insert_account" if account.was is None else "update_account"][key] = row
        writing = [
            Query(sql, list(turn.rows[name].values())) for name, sql in self._sql.writing.items()
        ]
        self._database.write_last(connection, [query for query in writing if query.rows])


def _state(rows: Sequence[Any]) -> State:
    first = rows[0]
    stopped_now = frozenset((row.target, row.kind) for row in rows if row.target)
    return State(moment(first.now), stopped_now)


def _closed(entry: Entry) -> str | None:
    """The attempt that an entry is about, unless it opens one."""
    if isinstance(entry, Renew):
        return entry.attempt_id
    return entry.attempt["id"] if isinstance(entry, Settle) and entry.attempt else None


def _keys(entries: Sequence[Entry], held: Mapping[str, AttemptRow], today: str) -> dict[Key, None]:
    """The accounts that the entries are about, each once; of attempts that are not `held`, those
    that they count against if they were opened today.
    """
    places: dict[tuple[tuple[str, ...], str], None] = {}
    for entry in entries:
        if attempt := held.get(_closed(entry) or ""):
            places[tuple(attempt.accounts), attempt.day] = None
        elif not isinstance(entry, Renew):
            places[tuple(cap.account for cap in entry.caps), today] = None
    return {(name, at): None for names, day in places for name in names for at in periods(day)}


@cache
def _statements(database: type[Database]) -> Statements:
    """Build them once in a process: that takes as long as many transactions."""
    now = database.microseconds().label("now")
    lock = (
        select(now, stops.c.target, stops.c.kind, database.lock_timeout())
        .select_from(policies.outerjoin(stops, true()))
        .where(policies.c.id == 1)
        .with_for_update(of=policies)
    )
    held = _reading(database, attempts, ["id"], ["id", *AttemptRow._fields])
    sums = _reading(database, accounts, ["name", "period"], ACCOUNT)
    writing = {
        "open_prediction": _inserting(database, predictions, OPENED_PREDICTION),
        "open_attempt": _inserting(database, attempts, OPENED_ATTEMPT),
        "keep_attempt": _updating(database, attempts, ["id"], KEPT_ATTEMPT),
        "close_attempt": _updating(database, attempts, ["id"], CLOSED_ATTEMPT),
        "close_prediction": _updating(database, predictions, ["id"], CLOSED_PREDICTION).where(
            predictions.c.status == "running"
        ),
        "correct_prediction": _correcting(database),
        "update_account": _updating(database, accounts, ["name", "period"], SUMS),
        "insert_account": _inserting(database, accounts, ACCOUNT),
    }
    return Statements(lock, held, sums, writing)


def _reading(
    database: type[Database], table: Table, by: Sequence[str], names: Sequence[str]
) -> Select[Any]:
    rows = database.rows([table.c[name] for name in by])
    same = (table.c[name] == rows[name] for name in by)
    return select(*(table.c[name] for name in names)).where(*same)


def _inserting(database: type[Database], table: Table, names: Sequence[str]) -> Insert:
    rows = database.rows([table.c[name] for name in names])
    return insert(table).from_select(names, select(*rows.values()))


def _updating(
    database: type[Database], table: Table, by: Sequence[str], names: Sequence[str]
) -> Update:
    rows = database.rows([table.c[name] for name in (*by, *names)])
    values: dict[str, Any] = {name: rows[name] for name in names}
    if "output" in values:  # An answer that comes after its record was erased is not kept.
        values["output"] = case((table.c.erased_at.is_(None), values["output"]))
    same = (table.c[name] == rows[name] for name in by)
    return update(table).where(*same).values(values)


def _correcting(database: type[Database]) -> Update:
    rows = database.rows([predictions.c.id, predictions.c.cost_nano_usd])
    cost = predictions.c.cost_nano_usd + rows["cost_nano_usd"]
    return update(predictions).where(predictions.c.id == rows["id"]).values(cost_nano_usd=cost)


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
