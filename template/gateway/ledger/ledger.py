"""The ledger: the most that each attempt may cost, before it is made, and what it did cost.

Entries that wait at the same time share one durable transaction; each caller goes on when its own
entry is durable. What cannot be written, as the database is gone, is written when it is back.
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
    abandoned,
    closing,
    lease_of,
    opening,
)
from gateway.ledger.transaction import LedgerTransaction
from gateway.pipeline.generation import Attempt, AttemptResult, Generation
from gateway.policy import Policy
from gateway.providers.base import Deadline
from gateway.telemetry import metrics

# A commit waits for the disk: a moment's company makes each one cheaper.
GATHER_SECONDS = 0.002
# Calls that wait for others' reservations; another process frees some without a word.
MAX_WAITING, POLL_SECONDS = 1000, 0.2
# All processes take turns at one lock.
TURNS = 5
# In a long outage every request that is refused would be kept, and few of them were written: those
# end with their leases.
MAX_ABANDONED = 1000


class Ledger:
    """Opens and closes attempts, durably. Raises `DatabaseUnavailable`."""

    def __init__(self, database: Database, policy: Policy, *, keep_content: bool) -> None:
        self._database = database
        self.keeps_content = keep_content
        self._posting = LedgerTransaction(database, policy.service.alert_percent)
        self._batcher: Batcher[Entry, None] = Batcher(self._write, pause=GATHER_SECONDS)
        self._owed: list[Settle] = []
        self._waiting = 0
        self._freed = asyncio.Event()

    async def open(self, generation: Generation, attempt: Attempt, *, waits: bool = True) -> None:
        """Reserve what `attempt` can cost. No byte may leave before this has returned.

        Where only open reservations are in the way, waits for them until the deadline, unless
        `waits` is false. Raises `BudgetExceeded`, `GenerationStopped`, `TimeoutError`, and
        `RateLimited` when it may not wait or too many do.
        """
        entry = opening(generation, attempt, keep_content=self.keeps_content)
        while not await self._opens(entry):
            await self._wait(generation.deadline, MAX_WAITING if waits else 0)

    async def keep(self, generation: Generation, attempt: Attempt) -> None:
        """Note that `attempt` is at work elsewhere, so that it is found again after a crash."""
        assert attempt.job.remote_id is not None, "work that has an id"
        await self.renew(attempt.id, attempt.job.remote_id, lease_of(generation.deadline))

    async def renew(self, attempt_id: str, remote_id: str, lease: dt.timedelta) -> None:
        """Leave an attempt that is at work elsewhere alone for `lease` from now."""
        await self._batcher.submit(Renew(attempt_id, remote_id, lease))

    def close(
        self,
        generation: Generation,
        attempt: Attempt | None,
        ending: AttemptResult,
        *,
        last: bool = True,
    ) -> asyncio.Future[None]:
        """Write how `attempt` ended, and with the `last` one the prediction.

        It begins at once, and goes on when its caller is gone. No answer may leave before it is
        done.
        """
        keep = self.keeps_content
        return self.settle(closing(generation, attempt, ending, last=last, keep=keep))

    def settle(self, entry: Settle) -> asyncio.Future[None]:
        """Write an entry that closes, now or when the database is back. Twice is as once."""
        return asyncio.shield(self._enqueue(entry))

    async def pay(self) -> None:
        """Write what could not be written when it was due."""
        owed, self._owed = self._owed, []
        await asyncio.gather(*map(self.settle, owed))

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        await self._batcher.drain()

    async def _opens(self, entry: Reserve) -> bool:
        """Whether it is open; False when others' reservations are in the way."""
        try:
            await self._batcher.submit(entry)
        except Blocked:
            return False
        except (DatabaseUnavailable, asyncio.CancelledError):
            # It may be written all the same: what commits now holds the lock, and this comes after.
            self._enqueue(abandoned(entry), most=MAX_ABANDONED)
            raise
        return True

    def _enqueue(self, entry: Settle, most: float = math.inf) -> asyncio.Future[None]:
        """Write `entry`; it is owed if the database is gone and no more than `most` are."""
        written = self._batcher.enqueue(entry)

        def look(ended: asyncio.Future[None]) -> None:
            if isinstance(ended.exception(), DatabaseUnavailable) and len(self._owed) < most:
                self._owed.append(entry)

        written.add_done_callback(look)
        return written

    async def _wait(self, deadline: Deadline, most: int) -> None:
        """Until something was settled: here, or perhaps by another process."""
        if self._waiting >= most:
            raise RateLimited(
                "Too many calls wait for budget that others have reserved.",
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
            return self._posting.write(connection, entries)

        try:
            results, settled = await self._database.retry_on_contention(
                lambda: self._database.transact(work), TURNS
            )
        except DBAPIError as error:
            if len(entries) == 1:
                return [error]
            # One entry is at fault, and the others must not suffer for it.
            return [problem for entry in entries for problem in await self._write([entry])]
        for each in settled:
            _count(each)
        if any(isinstance(entry, Settle) for entry in entries):
            self._freed.set()
            self._freed = asyncio.Event()
        return results


def _count(settled: Settled) -> None:
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
