"""The ledger: what was asked, the most that each attempt may cost, and what it did cost.

Writes that wait at the same time share one durable transaction; each caller goes on when its own
entry is durable.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic_core import to_json
from sqlalchemy import Connection, Insert, Table, Update, case, insert, select, update
from sqlalchemy.exc import DBAPIError

from app.batcher import Batcher
from app.db.engine import Database
from app.db.tables import attempts, predictions, utc_now
from app.guard import pricing
from app.guard.generation import Ending, Generation
from app.providers.base import Usage

# An attempt's lease outlives its deadline by this, so that nobody adopts work that still runs.
LEASE_MARGIN = dt.timedelta(seconds=30)
# A commit waits for the disk: a moment's company makes each one cheaper.
GATHER_SECONDS = 0.002
PREDICTION_BEGINS = (
    "id",
    "user_id",
    "request_id",
    "idempotency_key",
    "kind",
    "model",
    "provider",
    "status",
    "input",
    "day",
    "created_at",
)
ATTEMPT_BEGINS = (
    "id",
    "prediction_id",
    "user_id",
    "number",
    "provider",
    "model",
    "state",
    "bound_nano_usd",
    "price",
    "day",
    "opened_at",
    "lease_until",
)
ATTEMPT_ENDS = ("state", "cost_nano_usd", "remote_id", "closed_at")
PREDICTION_ENDS = (
    "served_model",
    "status",
    "outcome",
    "output",
    "error",
    "input_tokens",
    "output_tokens",
    "microseconds",
    "cost_nano_usd",
    "latency_ms",
    "finished_at",
)

Values = dict[str, Any]


class Entry(NamedTuple):
    """What is written together: rows for statements of `Ledger`, by the statement's name."""

    rows: Mapping[str, Values]


class Ledger:
    """Opens and closes attempts, durably. Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, *, keep_content: bool) -> None:
        self._database = database
        self._keep_content = keep_content
        self._batcher: Batcher[Entry, None] = Batcher(self._write, pause=GATHER_SECONDS)
        # In the order in which they run. Closing twice changes nothing.
        self._statements = {
            "open_prediction": _opening(database, predictions, PREDICTION_BEGINS),
            "open_attempt": _opening(database, attempts, ATTEMPT_BEGINS),
            "close_attempt": _closing(database, attempts, ATTEMPT_ENDS).where(
                attempts.c.state == "reserved"
            ),
            "close_prediction": _closing(database, predictions, PREDICTION_ENDS).where(
                predictions.c.status == "running"
            ),
        }

    async def open(self, generation: Generation) -> None:
        """Write a prediction and its attempt. No byte may leave before this has returned."""
        call, model = generation.call, generation.model
        now = generation.opened_at
        shared = {"user_id": call.principal.user_id, "day": now.date().isoformat()}
        prediction = {
            **shared,
            "id": generation.id,
            "request_id": call.request_id,
            "idempotency_key": call.idempotency_key,
            "kind": model.kind,
            "model": call.model,
            "provider": model.provider,
            "status": "running",
            "input": _json(call.body if self._keep_content else None),
            "created_at": now,
        }
        attempt = {
            **shared,
            "id": generation.attempt_id,
            "prediction_id": generation.id,
            "number": 1,
            "provider": model.provider,
            "model": model.id,
            "state": "reserved",
            "bound_nano_usd": pricing.cost(model.price, generation.bound),
            "price": _json(model.price._asdict()),
            "opened_at": now,
            "lease_until": now + dt.timedelta(seconds=call.seconds) + LEASE_MARGIN,
        }
        await self._batcher.submit(Entry({"open_prediction": prediction, "open_attempt": attempt}))

    async def close(self, generation: Generation, ending: Ending) -> None:
        """Write how both ended. No answer may leave before this has returned."""
        state, cost = generation.settlement(ending)
        usage, now = ending.usage or Usage(), utc_now()
        attempt = {
            "id": generation.attempt_id,
            "state": state,
            "cost_nano_usd": cost,
            "remote_id": generation.job.remote_id,
            "closed_at": now,
        }
        keep = self._keep_content and generation.call.keep_output
        prediction = {
            "id": generation.id,
            "served_model": generation.model.id,
            "status": ending.status,
            "outcome": ending.outcome.value,
            "output": _json(ending.output if keep else None),
            "error": _json(ending.error.body()["error"] if ending.error else None),
            "latency_ms": generation.latency_ms,
            "cost_nano_usd": cost,
            "finished_at": now,
            **usage._asdict(),
        }
        rows = {"close_attempt": attempt, "close_prediction": prediction}
        await self._batcher.submit(Entry(rows))

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        await self._batcher.drain()

    async def _write(self, entries: list[Entry]) -> Sequence[Exception | None]:
        try:
            await self._commit(entries)
        except DBAPIError as error:
            if len(entries) == 1:
                return [error]
            # One entry is at fault, and the others must not suffer for it.
            return [problem for entry in entries for problem in await self._write([entry])]
        return [None] * len(entries)

    async def _commit(self, entries: list[Entry]) -> None:
        def write(connection: Connection) -> None:
            for name, statement in self._statements.items():
                rows = [entry.rows[name] for entry in entries if name in entry.rows]
                if rows:
                    self._database.write_rows(connection, statement, rows)

        await self._database.transact(write)


def _opening(database: Database, table: Table, names: Sequence[str]) -> Insert:
    rows = database.rows([table.c[name] for name in names])
    return insert(table).from_select(names, select(*rows.c))


def _closing(database: Database, table: Table, names: Sequence[str]) -> Update:
    rows = database.rows([table.c.id, *(table.c[name] for name in names)])
    values: dict[str, Any] = {name: rows.c[name] for name in names}
    if "output" in values:  # An answer that comes after its record was erased is not kept.
        values["output"] = case((table.c.erased_at.is_(None), values["output"]))
    return update(table).where(table.c.id == rows.c.id).values(values)


def _json(value: Any) -> str | None:
    """A document as a column keeps it."""
    return None if value is None else to_json(value).decode()
