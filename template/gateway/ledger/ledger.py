"""The ledger: reserves the maximum cost of each attempt before it begins, settles its cost after.

Entries that wait at the same time share one durable transaction; each caller goes on when its own
entry is durable. A settlement that meets an outage of the database is written after the outage.
"""

import asyncio
import datetime as dt
import math
from collections.abc import Sequence
from contextlib import suppress

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from gateway.batcher import Batcher
from gateway.db.engine import Database
from gateway.errors import DatabaseUnavailable, RateLimited
from gateway.ledger.batch import Result, Settled
from gateway.ledger.budget import Blocked
from gateway.ledger.entries import (
    Entry,
    Renew,
    Reserve,
    Settle,
    lease_of,
    release_entry,
    reserve_entry,
    settle_entry,
)
from gateway.ledger.transaction import LedgerTransaction
from gateway.pipeline.generation import Attempt, AttemptResult, Generation
from gateway.policy import Policy
from gateway.providers.base import Deadline
from gateway.telemetry import metrics

# A commit waits for the disk: after one, entries gather for this long and share the next.
GATHER_SECONDS = 0.002
# Calls may wait for the reservations of others. A settlement in another process does not wake
# them, so they try again after POLL_SECONDS.
MAX_WAITING, POLL_SECONDS = 1000, 0.2
# All processes share one lock; a transaction that waits too long for it is tried so often.
LOCK_TRIES = 5
# Bounds memory in a long outage. Reservations that are not taken back end with their leases.
MAX_UNWRITTEN_RELEASES = 1000


class Ledger:
    """Reserves and settles attempts, durably. Its methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, policy: Policy, *, keep_content: bool) -> None:
        self._database = database
        self.keeps_content = keep_content
        self._transaction = LedgerTransaction(database, policy.service.alert_percent)
        self._batcher: Batcher[Entry, None] = Batcher(self._write, pause=GATHER_SECONDS)
        self._unwritten: list[Settle] = []
        self._waiting = 0
        self._freed = asyncio.Event()

    async def reserve(
        self, generation: Generation, attempt: Attempt, *, waits: bool = True
    ) -> None:
        """Reserve the maximum cost of `attempt`. Nothing may be sent before this returns.

        Where only open reservations are in the way, waits for them until the deadline, unless
        `waits` is false. Raises `BudgetExceeded`, `GenerationStopped`, `TimeoutError` at the
        deadline, and `RateLimited` when it may not wait or too many calls do.
        """
        entry = reserve_entry(generation, attempt, keep_content=self.keeps_content)
        while not await self._try_reserve(entry):
            await self._wait(generation.deadline, MAX_WAITING if waits else 0)

    async def renew(self, generation: Generation, attempt: Attempt) -> None:
        """Record the id of work at the provider, so that it is found again after a crash."""
        remote_id = attempt.request.remote_id
        assert remote_id is not None, "remote work has an id"
        await self.renew_lease(attempt.id, remote_id, lease_of(generation.deadline))

    async def renew_lease(self, attempt_id: str, remote_id: str, lease: dt.timedelta) -> None:
        """Let the lease of an attempt end after `lease` from now."""
        await self._batcher.submit(Renew(attempt_id, remote_id, lease))

    def settle(
        self,
        generation: Generation,
        attempt: Attempt | None,
        result: AttemptResult,
        *,
        last: bool = True,
    ) -> asyncio.Future[None]:
        """Write the result of `attempt`, and with the `last` attempt that of the prediction.

        Starts at once, and continues if the caller is cancelled. Send no answer before the future
        is done.
        """
        keep = self.keeps_content
        return self.submit(settle_entry(generation, attempt, result, last=last, keep=keep))

    def submit(self, entry: Settle) -> asyncio.Future[None]:
        """Write a settlement now or, in an outage, after it. Idempotent."""
        return asyncio.shield(self._enqueue(entry))

    async def flush(self) -> None:
        """Write the settlements that an outage of the database delayed."""
        unwritten, self._unwritten = self._unwritten, []
        await asyncio.gather(*map(self.submit, unwritten))

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        await self._batcher.drain()

    async def _try_reserve(self, entry: Reserve) -> bool:
        """Whether the reservation is written; False when other reservations are in the way."""
        try:
            await self._batcher.submit(entry)
        except Blocked:
            return False
        except (DatabaseUnavailable, asyncio.CancelledError):
            # The reservation may commit all the same. The release takes the same lock after it.
            self._enqueue(release_entry(entry), most=MAX_UNWRITTEN_RELEASES)
            raise
        return True

    def _enqueue(self, entry: Settle, most: float = math.inf) -> asyncio.Future[None]:
        """Write `entry`. In an outage, keep it for `flush` unless `most` entries are kept."""
        written = self._batcher.enqueue(entry)

        def on_written(written: asyncio.Future[None]) -> None:
            failed = isinstance(written.exception(), DatabaseUnavailable)
            if failed and len(self._unwritten) < most:
                self._unwritten.append(entry)

        written.add_done_callback(on_written)
        return written

    async def _wait(self, deadline: Deadline, most: int) -> None:
        """Wait for a settlement in this process, or POLL_SECONDS for one in another."""
        if self._waiting >= most:
            raise RateLimited(
                "Too many calls wait for budget that other calls have reserved.",
                param="concurrency",
                retry_after=1,
            )
        self._waiting += 1
        try:
            async with deadline.scope():
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._freed.wait()
        finally:
            self._waiting -= 1

    async def _write(self, entries: list[Entry]) -> Sequence[Exception | None]:
        def work(connection: Connection) -> tuple[list[Result], list[Settled]]:
            return self._transaction.write(connection, entries)

        try:
            results, settled = await self._database.retry_on_contention(
                lambda: self._database.transact(work), LOCK_TRIES
            )
        except DBAPIError as error:
            if len(entries) == 1:
                return [error]
            # One entry is at fault: write each alone, so that the others are written.
            return [problem for entry in entries for problem in await self._write([entry])]
        for each in settled:
            _count(each)
        if any(isinstance(entry, Settle) for entry in entries):
            self._freed.set()
            self._freed = asyncio.Event()
        return results


def _count(settled: Settled) -> None:
    """Add a settlement to the metrics."""
    used = settled.usage
    metrics.cost.labels(settled.model).inc(settled.cost_nano_usd)
    metrics.tokens.labels(settled.model, "input").inc(used.input_tokens)
    metrics.tokens.labels(settled.model, "output").inc(used.output_tokens)
    if used.cached_input_tokens:
        metrics.tokens.labels(settled.model, "cached_input").inc(used.cached_input_tokens)
    if used.cache_write_tokens:
        metrics.tokens.labels(settled.model, "cache_write").inc(used.cache_write_tokens)
    if used.outputs:
        metrics.outputs.labels(settled.model).inc(used.outputs)
