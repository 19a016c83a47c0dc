"""The ledger: what was asked, the most that each attempt may cost, and what it did cost.

Writes that wait at the same time share one durable transaction; each caller goes on when its own
entry is durable.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Insert, Table, Update, bindparam, case, insert, update
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
ATTEMPT_ENDS = ("state", "cost_nano_usd", "remote_id", "closed_at")
PREDICTION_ENDS = ("served_model", "status", "outcome", "output", "error", "latency_ms")
PREDICTION_COSTS = ("input_tokens", "output_tokens", "microseconds", "cost_nano_usd", "finished_at")

Values = dict[str, Any]
Entry = list[tuple[Insert | Update, Values]]


def _closing(table: Table, *names: str) -> Update:
    values: dict[str, Any] = {
        name: bindparam(f"new_{name}", type_=table.c[name].type) for name in names
    }
    if "output" in values:  # An answer that comes after its record was erased is not kept.
        values["output"] = case((table.c.erased_at.is_(None), values["output"]))
    return update(table).where(table.c.id == bindparam("row_id")).values(values)


OPEN_PREDICTION = insert(predictions)
OPEN_ATTEMPT = insert(attempts)
# Closing twice changes nothing.
CLOSE_ATTEMPT = _closing(attempts, *ATTEMPT_ENDS).where(attempts.c.state == "reserved")
CLOSE_PREDICTION = _closing(predictions, *PREDICTION_ENDS, *PREDICTION_COSTS).where(
    predictions.c.status == "running"
)


class Ledger:
    """Opens and closes attempts, durably. Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, *, keep_content: bool) -> None:
        self._database = database
        self._keep_content = keep_content
        self._batcher: Batcher[Entry, None] = Batcher(self._write, pause=GATHER_SECONDS)

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
            "input": call.body if self._keep_content else None,
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
            "price": model.price._asdict(),
            "opened_at": now,
            "lease_until": now + dt.timedelta(seconds=call.seconds) + LEASE_MARGIN,
        }
        await self._batcher.submit([(OPEN_PREDICTION, prediction), (OPEN_ATTEMPT, attempt)])

    async def close(self, generation: Generation, ending: Ending) -> None:
        """Write how both ended. No answer may leave before this has returned."""
        state, cost = generation.settlement(ending)
        usage, now = ending.usage or Usage(), utc_now()
        attempt = {
            "row_id": generation.attempt_id,
            "new_state": state,
            "new_cost_nano_usd": cost,
            "new_remote_id": generation.job.remote_id,
            "new_closed_at": now,
        }
        keep = self._keep_content and generation.call.keep_output
        prediction = {
            "row_id": generation.id,
            "new_served_model": generation.model.id,
            "new_status": ending.status,
            "new_outcome": ending.outcome.value,
            "new_output": ending.output if keep else None,
            "new_error": ending.error.body()["error"] if ending.error else None,
            "new_latency_ms": generation.latency_ms,
            "new_cost_nano_usd": cost,
            "new_finished_at": now,
            **{f"new_{name}": count for name, count in usage._asdict().items()},
        }
        await self._batcher.submit([(CLOSE_ATTEMPT, attempt), (CLOSE_PREDICTION, prediction)])

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
            for statement in (OPEN_PREDICTION, OPEN_ATTEMPT, CLOSE_ATTEMPT, CLOSE_PREDICTION):
                rows = [values for entry in entries for kind, values in entry if kind is statement]
                if rows:
                    connection.execute(statement, rows)

        await self._database.transact(write)
