"""One transaction of the ledger: under one lock, it applies entries in order and writes at once.

A transaction locks the row of the policies before it changes accounts. So budgets are exact over
all processes, and no two transactions wait for each other. The number of statements does not
depend on the number of entries.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import Any

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
    users,
    utc_now,
)
from gateway.ledger.batch import AttemptRow, LedgerBatch, LedgerState, Result, Settled
from gateway.ledger.budget import AccountPeriod, Balances, periods
from gateway.ledger.entries import Entry, Renew, Reserve, Settle, Values

ACCOUNT_KEY, ACCOUNT_SUMS = ("name", "period"), ("spent_nano_usd", "reserved_nano_usd")
IS_LOCK = policies.c.id == 1
IS_QUARANTINE = stops.c.kind == "quarantined"

Sums = dict[AccountPeriod, tuple[int, int]]
"""What accounts have spent and reserved, in nano-dollars."""


class LedgerTransaction:
    """Writes entries. `percents` are the percentages of a cap that raise an alert."""

    def __init__(self, database: Database, percents: Sequence[int]) -> None:
        self._database = database
        self._percents = percents
        self._lock, self._deleted, self._attempts, self._account_sums = _read_statements(
            type(database)
        )

    def write(
        self, connection: Connection, entries: Sequence[Entry]
    ) -> tuple[list[Result], list[Settled]]:
        """The result of each entry, None or its refusal, and what the entries settled."""
        state, known, sums = self._read(connection, entries)
        batch = LedgerBatch(state, known, Balances(sums, self._percents))
        results = [batch.apply(entry) for entry in entries]
        self._write(connection, batch)
        return results, batch.settled

    def _read(
        self, connection: Connection, entries: Sequence[Entry]
    ) -> tuple[LedgerState, dict[str, AttemptRow], Sums]:
        """Take the lock, then read attempts and accounts; the likely accounts in the same trip."""
        likely = _account_periods(entries, {}, utc_now().date().isoformat())
        owners = {e.attempt["user_id"] for e in entries if isinstance(e, Reserve)}
        named = filter(None, map(_attempt_id, entries))
        locked, deleted, found, summed = self._database.read(
            connection,
            [
                Query(self._lock),
                Query(self._deleted, [{"id": name} for name in owners]),
                Query(self._attempts, [{"id": name} for name in named]),
                self._sums(likely),
            ],
        )
        stopped = frozenset((row.target, row.kind) for row in locked if row.target)
        gone = frozenset(row.id for row in deleted)
        state = LedgerState(moment(locked[0].now), stopped, gone)
        known = {row.id: AttemptRow._make(row[1:]) for row in found}
        needed = _account_periods(entries, known, state.now.date().isoformat())
        if missed := [key for key in needed if key not in likely]:
            summed = [*summed, *self._database.read(connection, [self._sums(missed)])[0]]
        sums = {
            (row.name, row.period): (row.spent_nano_usd, row.reserved_nano_usd) for row in summed
        }
        return state, known, sums

    def _sums(self, keys: Iterable[AccountPeriod]) -> Query:
        return Query(self._account_sums, [dict(zip(ACCOUNT_KEY, key, strict=True)) for key in keys])

    def _write(self, connection: Connection, batch: LedgerBatch) -> None:
        _insert_new(connection, alerts, "id", batch.alerts())
        _insert_new(connection, stops, "target", batch.quarantined, IS_QUARANTINE)
        columns = (*ACCOUNT_KEY, *ACCOUNT_SUMS)
        for key, account in batch.balances.changes():
            row = dict(zip(columns, (*key, account.spent, account.reserved), strict=True))
            batch.rows["insert_account" if account.was is None else "update_account"][key] = row
        self._database.write_last(connection, list(self._writing(batch)))

    def _writing(self, batch: LedgerBatch) -> Iterable[Query]:
        """The statements that write the rows, in the order of `WRITES`."""
        for name in WRITES:
            if rows := list(batch.rows[name].values()):
                yield Query(_statement(type(self._database), name, tuple(rows[0])), rows)


def take_lock(connection: Connection, database: Database) -> None:
    """Take the lock of the ledger's transactions, with its short time-outs."""
    lock = select(policies.c.id, database.lock_timeout()).where(IS_LOCK)
    connection.execute(lock.with_for_update(of=policies))


def _attempt_id(entry: Entry) -> str | None:
    """The attempt that an entry renews or settles; None for a reservation."""
    if isinstance(entry, Renew):
        return entry.attempt_id
    return entry.attempt["id"] if isinstance(entry, Settle) and entry.attempt else None


def _account_periods(
    entries: Sequence[Entry], known: Mapping[str, AttemptRow], today: str
) -> dict[AccountPeriod, None]:
    """The accounts that the entries change, each once.

    An attempt that is not `known` counts as one of `today`.
    """
    groups: dict[tuple[tuple[str, ...], str], None] = {}
    for entry in entries:
        if attempt := known.get(_attempt_id(entry) or ""):
            groups[tuple(attempt.accounts), attempt.day] = None
        elif not isinstance(entry, Renew):
            groups[tuple(cap.account for cap in entry.caps), today] = None
    return {(name, at): None for names, day in groups for name in names for at in periods(day)}


@cache
def _read_statements(database: type[Database]) -> tuple[Executable, ...]:
    """The statements for the lock, the deleted users, the attempts and the accounts.

    Built once for a process: building takes as long as many transactions.
    """
    now = database.microseconds().label("now")
    lock = (
        select(now, stops.c.target, stops.c.kind, database.lock_timeout())
        .select_from(policies.outerjoin(stops, true()))
        .where(IS_LOCK)
        .with_for_update(of=policies)
    )
    return (
        lock,
        _select(database, users, ["id"], ["id"]).where(users.c.deleted_at.is_not(None)),
        _select(database, attempts, ["id"], ["id", *AttemptRow._fields]),
        _select(database, accounts, ACCOUNT_KEY, [*ACCOUNT_KEY, *ACCOUNT_SUMS]),
    )


@cache
def _statement(database: type[Database], name: str, columns: tuple[str, ...]) -> Executable:
    """The statement of `WRITES` for rows with these columns, built once for a process."""
    return WRITES[name](database, columns)


def _select(
    database: type[Database], table: Table, by: Sequence[str], columns: Sequence[str]
) -> Select[Any]:
    rows = database.rows([table.c[name] for name in by])
    same = (table.c[name] == rows[name] for name in by)
    return select(*(table.c[name] for name in columns)).where(*same)


def _insert(table: Table, database: type[Database], columns: Sequence[str]) -> Insert:
    rows = database.rows([table.c[name] for name in columns])
    return insert(table).from_select(columns, select(*rows.values()))


def _update(
    table: Table, by: Sequence[str], database: type[Database], columns: Sequence[str]
) -> Update:
    rows = database.rows([table.c[name] for name in columns])
    values: dict[str, Any] = {name: rows[name] for name in columns if name not in by}
    same = (table.c[name] == rows[name] for name in by)
    return update(table).where(*same).values(values)


def _finish_prediction(database: type[Database], columns: Sequence[str]) -> Update:
    """Ends a prediction that runs. The output is dropped if the record was erased meanwhile."""
    rows = database.rows([predictions.c[name] for name in columns])
    values: dict[str, Any] = {name: rows[name] for name in columns if name != "id"}
    values["output"] = case((predictions.c.erased_at.is_(None), rows["output"]))
    is_running = predictions.c.status == "running"
    return update(predictions).where(predictions.c.id == rows["id"], is_running).values(values)


def _correct_prediction(database: type[Database], columns: Sequence[str]) -> Update:
    """Adds to the cost of a prediction."""
    rows = database.rows([predictions.c[name] for name in columns])
    cost = predictions.c.cost_nano_usd + rows["cost_nano_usd"]
    return update(predictions).where(predictions.c.id == rows["id"]).values(cost_nano_usd=cost)


WRITES: Mapping[str, Callable[[type[Database], Sequence[str]], Executable]] = {
    "insert_prediction": partial(_insert, predictions),
    "insert_attempt": partial(_insert, attempts),
    "renew_attempt": partial(_update, attempts, ["id"]),
    "settle_attempt": partial(_update, attempts, ["id"]),
    "finish_prediction": _finish_prediction,
    "correct_prediction": _correct_prediction,
    "update_account": partial(_update, accounts, ACCOUNT_KEY),
    "insert_account": partial(_insert, accounts),
}
"""The statements that write rows, by name and in the order of execution."""


def _insert_new(
    connection: Connection, table: Table, name: str, rows: Sequence[Values], *conditions: Any
) -> None:
    """Insert the rows whose value of `name` is not in the table, each once."""
    wanted = {row[name]: row for row in rows}
    if not wanted:
        return
    known = select(table.c[name]).where(table.c[name].in_(list(wanted)), *conditions)
    there = set(connection.execute(known).scalars())
    if missing := [row for key, row in wanted.items() if key not in there]:
        connection.execute(insert(table), missing)
