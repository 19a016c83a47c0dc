"""The table of idempotency keys: the request that has a key, its state and its answer."""

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Delete,
    Executable,
    Index,
    LargeBinary,
    Row,
    String,
    Table,
    UniqueConstraint,
    Update,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from gateway.batcher import Batcher
from gateway.db.engine import Database
from gateway.db.tables import UtcDateTime, attempts, metadata, owner, predictions
from gateway.errors import DatabaseUnavailable, IdempotencyInFlight
from gateway.ids import new_id
from gateway.ledger.batch import OPEN
from gateway.ledger.entries import LEASE_MARGIN
from gateway.telemetry.logging import log

KEPT = dt.timedelta(hours=24)
SWEPT_AT_ONCE = 100
RETRY_SECONDS = 1
# The last byte of an answer waits for so many seconds at most until the answer is stored.
STORE_SECONDS = 2.0


class KeyState(StrEnum):
    """The state of the first request with a key."""

    RUNNING = "running"
    ANSWERED = "answered"
    LOST = "lost"
    TOO_LARGE = "too_large"
    ERASED = "erased"


idempotency = Table(
    "idempotency",
    metadata,
    Column("id", String(40), primary_key=True),
    owner(),
    Column("route", String(200), nullable=False),
    Column("key", String(255), nullable=False),
    # A digest of the request, and the answer; both encrypted.
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("state", String(20), nullable=False),
    Column("prediction_id", String(40)),
    # A request that still runs then has lost its process.
    Column("lease_until", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    UniqueConstraint("user_id", "route", "key"),
    Index(None, "prediction_id"),
    Index(None, "expires_at"),
)


class IdempotencyKey(NamedTuple):
    """A user, a route and the client's key."""

    user_id: str
    route: str
    name: str


class Claim(NamedTuple):
    """A key that a request has acquired."""

    id: str
    key: IdempotencyKey


class Operation(NamedTuple):
    """A change of a key's row. Changes that wait at the same time share a transaction."""

    key: IdempotencyKey
    work: Callable[[Connection], Claim | Row[Any] | Exception | None]


class IdempotencyStore:
    """Gives each key to one request over all processes: the one that inserts its row.

    `seconds` is the longest that a request takes. After that and a margin, by the database's clock,
    a running request counts as lost.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._lease = dt.timedelta(seconds=seconds) + LEASE_MARGIN
        self._batcher: Batcher[Operation, Claim | Row[Any] | None] = Batcher(
            self._write, abandoned=self._abandoned
        )

    async def acquire(self, key: IdempotencyKey, request: bytes) -> Claim | Row[Any]:
        """A claim of the key for `request`, or the row of the request that has the key.

        The row's `overdue` is true once its lease has ended. Raises `DatabaseUnavailable`, and
        `IdempotencyInFlight` if another process changes the row at the moment.
        """
        taken = await self._batcher.submit(Operation(key, lambda c: self._acquire(c, key, request)))
        assert taken is not None, "a claim or a row"
        return taken

    async def complete(self, claim: Claim, answer: bytes, prediction_id: str) -> None:
        """Store a complete, encrypted answer, unless the prediction was erased meanwhile."""
        erased = (
            select(predictions.c.id)
            .where(predictions.c.id == prediction_id, predictions.c.erased_at.is_not(None))
            .exists()
        )
        await self._end(
            claim,
            _change(claim).values(
                state=case((erased, KeyState.ERASED), else_=KeyState.ANSWERED),
                answer=case((~erased, answer)),
                prediction_id=prediction_id,
            ),
        )

    async def mark_unknown(self, claim: Claim, state: KeyState) -> None:
        """Record that the request may have been carried out, and has no answer to replay."""
        await self._end(claim, _change(claim).values(state=state))

    async def release(self, claim: Claim) -> None:
        """Free the key: the next request with it runs."""
        await self._end(claim, _removal(claim))

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        await self._batcher.drain()

    async def _end(self, claim: Claim, statement: Executable) -> None:
        """A failure is logged and not raised: the client gets its answer. The key stays in flight
        until the lease ends, and is unknown afterwards.
        """
        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._batcher.submit(_execution(claim, statement))
        except (DatabaseUnavailable, TimeoutError) as error:
            log(logging.WARNING, "The end of an idempotent request was not written", error=error)

    def _abandoned(self, _: Operation, taken: Claim | Row[Any] | None) -> None:
        """Free a key whose caller was cancelled before it began."""
        if isinstance(taken, Claim):
            done = self._batcher.enqueue(_execution(taken, _removal(taken)))
            done.add_done_callback(lambda _: done.exception())  # then its lease ends

    async def _write(
        self, operations: list[Operation]
    ) -> Sequence[Claim | Row[Any] | Exception | None]:
        # All processes lock the keys in one order, so they cannot deadlock.
        order = sorted(range(len(operations)), key=lambda place: operations[place].key)

        def work(connection: Connection) -> list[Claim | Row[Any] | Exception | None]:
            results = {place: operations[place].work(connection) for place in order}
            return [results[place] for place in range(len(operations))]

        return await self._database.transact(work)

    def _acquire(
        self, connection: Connection, key: IdempotencyKey, request: bytes
    ) -> Claim | Row[Any] | IdempotencyInFlight:
        now = connection.execute(select(func.now(type_=UtcDateTime()))).scalar_one()
        _sweep(connection, key, now)
        if found := _find(connection, key, now):
            is_lost = found.state == KeyState.LOST
            if not is_lost and not (found.state == KeyState.RUNNING and found.overdue):
                return found
            if begun := _states_of_attempts(connection, found):
                # An open attempt may still be settled at nothing.
                is_ending = is_lost and not begun.isdisjoint(OPEN)
                return in_flight() if is_ending else found
            connection.execute(delete(idempotency).where(idempotency.c.id == found.id))
        claim = Claim(new_id("idem"), key)
        row = {
            "id": claim.id,
            "user_id": key.user_id,
            "route": key.route,
            "key": key.name,
            "request": request,
            "state": KeyState.RUNNING,
            "lease_until": now + self._lease,
            "expires_at": now + KEPT,
        }
        try:
            with connection.begin_nested():
                connection.execute(insert(idempotency), row)
        except IntegrityError:
            # Another process inserted the key, and may have freed it since.
            return _find(connection, key, now) or in_flight()
        return claim


def in_flight() -> IdempotencyInFlight:
    """The error for a key whose first request still runs."""
    return IdempotencyInFlight(
        "The first request with this Idempotency-Key still runs; try again later.",
        retry_after=RETRY_SECONDS,
    )


def erasing(prediction_ids: Sequence[str]) -> Update:
    """The statement that removes the stored answers of predictions."""
    stored = idempotency.c.prediction_id.in_(prediction_ids)
    return update(idempotency).where(stored).values(state=KeyState.ERASED, answer=None)


def _find(connection: Connection, key: IdempotencyKey, now: dt.datetime) -> Row[Any] | None:
    overdue = (idempotency.c.lease_until <= now).label("overdue")
    return connection.execute(select(idempotency, overdue).where(_is(key))).first()


def _states_of_attempts(connection: Connection, found: Row[Any]) -> set[str]:
    """The states of the attempts that the request of a key may have sent.

    Empty if it sent nothing: each reservation is durable before its first byte is sent.
    """
    table = attempts.c
    query = (
        select(table.state)
        .join(predictions, predictions.c.id == table.prediction_id)
        .where(
            predictions.c.user_id == found.user_id,
            predictions.c.idempotency_key == found.key,
            predictions.c.created_at >= found.expires_at - KEPT,
            table.state != "released",
        )
    )
    return set(connection.execute(query).scalars())


def _sweep(connection: Connection, key: IdempotencyKey, now: dt.datetime) -> None:
    """Remove the row of this key if it has expired, and some other expired rows."""
    expired = idempotency.c.expires_at <= now
    oldest = (
        select(idempotency.c.id)
        .where(expired)
        .order_by(idempotency.c.expires_at)
        .limit(SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    rows = or_(idempotency.c.id.in_(oldest), _is(key))
    connection.execute(delete(idempotency).where(expired, rows))


def _is(key: IdempotencyKey) -> ColumnElement[bool]:
    table = idempotency.c
    return and_(table.user_id == key.user_id, table.route == key.route, table.key == key.name)


def _change(claim: Claim) -> Update:
    return update(idempotency).where(idempotency.c.id == claim.id)


def _removal(claim: Claim) -> Delete:
    return delete(idempotency).where(idempotency.c.id == claim.id)


def _execution(claim: Claim, statement: Executable) -> Operation:
    def work(connection: Connection) -> None:
        connection.execute(statement)

    return Operation(claim.key, work)
