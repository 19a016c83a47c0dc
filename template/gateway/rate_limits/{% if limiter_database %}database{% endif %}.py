"""The limiter in the database, exact over all processes and replicas that share it.

A row is a bucket ("level:microseconds"), the holders of a slot, or a stored value. Operations that
wait at the same time share a transaction. It locks their rows in the order of their names, so that
transactions cannot deadlock, reads them at one time of the database's clock, and writes them.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from pydantic_core import from_json, to_json
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Table,
    Text,
    bindparam,
    delete,
    exists,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from gateway.batcher import Batcher
from gateway.config import GatewayConfig
from gateway.db.engine import Database, Query
from gateway.db.tables import metadata
from gateway.errors import DatabaseUnavailable, LimiterUnavailable
from gateway.rate_limits.base import (
    MINUTE,
    AcquireRequest,
    Admission,
    Bucket,
    BucketStatus,
    Slot,
    SlotStatus,
    StoredValue,
    fits,
    given_back,
    leaked,
)

# So many tries end within a second, and so does a request that cannot be checked.
LOCK_TRIES = 2
SWEEP_SECONDS = 60.0
SWEPT_AT_ONCE = 1000
# Expired rows are kept for an hour: their users may return.
KEPT = 60 * MINUTE
NOTHING = Admission(admitted=True, buckets=())

limits = Table(
    "limits",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
    # When the row expires, in microseconds since 1970.
    Column("until", BigInteger, nullable=False),
    Index(None, "until"),
)


class Board:
    """The rows of a batch at one time, in microseconds since 1970, and their changes."""

    def __init__(self, values: dict[str, str], now: int) -> None:
        self._values = values
        self._now = now
        self.changes: dict[str, dict[str, Any]] = {}

    def acquire(self, request: AcquireRequest) -> Admission:
        levels = [self._level(bucket) for bucket in request.buckets]
        waits = [self._wait(slot) for slot in request.slots]
        admitted = not any(waits) and all(map(fits, request.buckets, levels))
        if admitted:
            levels = list(map(_taken, request.buckets, levels))
            self._keep_levels(request.buckets, levels)
            for slot in request.slots:
                ends = self._now + round(slot.seconds * 1e6)
                self._keep_holders(slot, self._holders(slot) | {slot.holder: ends})
        taken = [len(self._holders(slot)) for slot in request.slots]
        places = zip(request.slots, taken, waits, strict=True)
        return Admission(
            admitted,
            tuple(map(BucketStatus, request.buckets, levels)),
            tuple(SlotStatus(slot, number, wait / 1e6) for slot, number, wait in places),
        )

    def release(self, request: AcquireRequest) -> Admission:
        levels = [given_back(bucket, self._level(bucket)) for bucket in request.buckets]
        self._keep_levels(request.buckets, levels)
        for slot in request.slots:
            holders = self._holders(slot)
            if holders.pop(slot.holder, None):
                self._keep_holders(slot, holders)
        return NOTHING

    def set(self, key: str, value: str, microseconds: int) -> Admission:
        self._keep(_memory(key), value, self._now + microseconds)
        return NOTHING

    def _level(self, bucket: Bucket) -> int:
        level, _, at = self._values[_bucket(bucket)].partition(":")
        return leaked(bucket, int(level), max(0, self._now - int(at))) if level else 0

    def _keep_levels(self, buckets: Iterable[Bucket], levels: Iterable[int]) -> None:
        for bucket, level in zip(buckets, levels, strict=True):
            empty_at = self._now + level // bucket.capacity
            self._keep(_bucket(bucket), f"{level}:{self._now}", empty_at)

    def _holders(self, slot: Slot) -> dict[str, int]:
        known: dict[str, int] = from_json(self._values[_slot(slot)] or "{}")
        return {holder: until for holder, until in known.items() if until > self._now}

    def _keep_holders(self, slot: Slot, holders: dict[str, int]) -> None:
        latest = max(holders.values(), default=self._now)
        self._keep(_slot(slot), to_json(holders).decode(), latest)

    def _wait(self, slot: Slot) -> int:
        """Microseconds until a slot is free, by the leases; 0 if one is free or held already."""
        holders = self._holders(slot)
        if len(holders) < slot.capacity or slot.holder in holders:
            return 0
        return sorted(holders.values())[-slot.capacity] - self._now

    def _keep(self, name: str, value: str, until: int) -> None:
        self._values[name] = value
        self.changes[name] = {"name": name, "value": value, "until": until}


class Operation(NamedTuple):
    """A change of the rows `names`; `undo` is released if the caller was cancelled."""

    names: Sequence[str]
    apply: Callable[[Board], Admission]
    undo: AcquireRequest | None = None


class DatabaseLimiter:
    """Levels, slots and values in the database of the service."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batcher: Batcher[Operation, Admission] = Batcher(
            self._run, outage=LimiterUnavailable, abandoned=self._abandoned
        )
        self._patience = Query(select(database.lock_timeout()))
        self._swept_at = time.monotonic()
        asked = database.rows([limits.c.name])
        wanted = select(limits).where(limits.c.name == asked["name"])
        # Each row's time is read after its lock, which may have taken long: the latest counts.
        locked = wanted.order_by(limits.c.name).with_for_update(of=limits).subquery()
        self._lock = select(locked.c.name, locked.c.value, database.microseconds().label("now"))
        named = limits.c.name.in_(bindparam("names", expanding=True))
        self._read = select(limits, database.microseconds().label("now")).where(named)
        rows = database.rows([limits.c.name, limits.c.value, limits.c.until])
        known = exists().where(limits.c.name == rows["name"])
        missing = select(*rows.values()).where(~known).order_by(rows["name"])
        self._make = insert(limits).from_select(["name", "value", "until"], missing)
        changed = {"value": rows["value"], "until": rows["until"]}
        self._write = update(limits).where(limits.c.name == rows["name"]).values(changed)

    async def acquire(self, request: AcquireRequest) -> Admission:
        return await self._submit(
            Operation(_names(request), lambda board: board.acquire(request), undo=request)
        )

    async def release(self, request: AcquireRequest) -> None:
        await self._submit(_settling(request))

    async def set(self, key: str, value: str, seconds: float) -> None:
        microseconds = round(seconds * 1e6)
        operation = Operation([_memory(key)], lambda board: board.set(key, value, microseconds))
        await self._submit(operation)

    async def get(self, keys: Sequence[str]) -> Sequence[StoredValue | None]:
        with _faults():
            rows = await self._database.fetch(self._read, {"names": list(map(_memory, keys))})
        found = {
            row.name: StoredValue(row.value, (row.until - row.now) / 1e6)
            for row in rows
            if row.until > row.now
        }
        return [found.get(_memory(key)) for key in keys]

    async def delete(self, *keys: str) -> None:
        def erase(board: Board) -> Admission:
            return [board.set(key, "", 0) for key in keys][-1]

        await self._submit(Operation(list(map(_memory, keys)), erase))

    async def check(self) -> None:
        await self.get(["check"])

    async def weakness(self) -> None:
        """None: the rows are as durable as all others."""

    async def close(self) -> None:
        await self._batcher.drain()

    async def _submit(self, operation: Operation) -> Admission:
        if not operation.names:
            return NOTHING
        return await self._batcher.submit(operation)

    def _abandoned(self, operation: Operation, admission: Admission) -> None:
        """Give back what was taken for a caller that was cancelled meanwhile."""
        if operation.undo and admission.admitted:
            done = self._batcher.enqueue(_settling(operation.undo))
            done.add_done_callback(lambda _: done.exception())  # then the lease ends it

    async def _run(self, operations: list[Operation]) -> Sequence[Admission]:
        names = sorted({name for operation in operations for name in operation.names})

        def work(connection: Connection) -> list[Admission] | None:
            return self._decide(connection, names, operations)

        with _faults():
            once = partial(self._database.transact, work)
            while (answers := await self._database.retry_on_contention(once, LOCK_TRIES)) is None:
                await self._make_rows(names)
        return answers

    def _decide(
        self, connection: Connection, names: list[str], operations: list[Operation]
    ) -> list[Admission] | None:
        """The answers; None if a row is missing.

        The locks are held for one more round trip only, as other transactions wait for them.
        """
        asked = Query(self._lock, [{"name": name} for name in names])
        _, rows = self._database.read(connection, [self._patience, asked])
        if len(rows) < len(names):
            return None
        now: int = max(row.now for row in rows)
        board = Board({row.name: row.value for row in rows}, now)
        answers = [operation.apply(board) for operation in operations]
        self._sweep(connection, now, names)
        if board.changes:
            changes = Query(self._write, list(board.changes.values()))
            self._database.write_last(connection, [changes])
        return answers

    async def _make_rows(self, names: list[str]) -> None:
        """Insert missing rows in an own transaction: one with locks must not wait for new rows."""
        rows = [{"name": name, "value": "", "until": 0} for name in names]

        def work(connection: Connection) -> None:
            self._database.write_last(connection, [Query(self._make, rows)])

        try:
            await self._database.transact(work)
        except IntegrityError:
            """Another process inserted one of them at the same moment."""

    def _sweep(self, connection: Connection, now: int, used: list[str]) -> None:
        """Every SWEEP_SECONDS, remove rows that expired long ago and are not `used`."""
        if time.monotonic() < self._swept_at + SWEEP_SECONDS:
            return
        self._swept_at = time.monotonic()
        old = select(limits.c.name).where(limits.c.until < now - KEPT).limit(SWEPT_AT_ONCE)
        unused = old.where(limits.c.name.not_in(used)).with_for_update(skip_locked=True)
        connection.execute(delete(limits).where(limits.c.name.in_(unused)))


def _settling(request: AcquireRequest) -> Operation:
    return Operation(_names(request), lambda board: board.release(request))


def _taken(bucket: Bucket, level: int) -> int:
    return level + bucket.take * MINUTE


def _names(request: AcquireRequest) -> list[str]:
    return [*map(_bucket, request.buckets), *map(_slot, request.slots)]


def _bucket(bucket: Bucket) -> str:
    return f"bucket:{bucket.key}"


def _slot(slot: Slot) -> str:
    return f"slot:{slot.key}"


def _memory(key: str) -> str:
    return f"memory:{key}"


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (DatabaseUnavailable, TimeoutError) as error:
        raise LimiterUnavailable(
            "Limits cannot be checked right now. Try again.", retry_after=1
        ) from error


def open_limiter(_: GatewayConfig, database: Database) -> DatabaseLimiter:
    """The limiter on the database of the service."""
    return DatabaseLimiter(database)
