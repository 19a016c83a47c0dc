"""The table behind `Idempotency-Key`: which request has a key, and what became of it."""

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
# The end of an answer waits until it is stored, but not for a slow database.
STORE_SECONDS = 2.0


class KeyState(StrEnum):
    """What became of the first request with a key."""

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
    # A digest of what was asked, and the answer; both sealed.
    Column("request", LargeBinary, nullable=False),
    Column("answer", LargeBinary),
    Column("state", String(20), nullable=False),
    Column("prediction_id", String(40)),
    # What still runs by then was lost.
    Column("lease_until", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    UniqueConstraint("user_id", "route", "key"),
    Index(None, "prediction_id"),
    Index(None, "expires_at"),
)


class IdempotencyKey(NamedTuple):
    """Whose key, for which route, and the key itself."""

    user_id: str
    route: str
    name: str


class Claim(NamedTuple):
    """A key that a request has taken."""

    id: str
    key: IdempotencyKey


class Operation(NamedTuple):
    """What a request does to the table, at one time with others."""

    key: IdempotencyKey
    work: Callable[[Connection], Claim | Row[Any] | Exception | None]


class IdempotencyStore:
    """Over all processes, one request has a key: the one that could insert its row.

    `seconds` is the longest that a request takes; what runs on after that and a margin was lost.
    The database's clock decides.
    """

    def __init__(self, database: Database, seconds: float) -> None:
        self._database = database
        self._lease = dt.timedelta(seconds=seconds) + LEASE_MARGIN
        self._batcher: Batcher[Operation, Claim | Row[Any] | None] = Batcher(
            self._write, abandoned=self._abandoned
        )

    async def acquire(self, key: IdempotencyKey, request: bytes) -> Claim | Row[Any]:
        """Take the key for `request`; or the row of the one that has it, `overdue` when lost.

        Raises `DatabaseUnavailable`, and `IdempotencyInFlight` when that cannot be told.
        """
        taken = await self._batcher.submit(Operation(key, lambda c: self._acquire(c, key, request)))
        assert taken is not None, "a claim or a row"
        return taken

    async def complete(self, claim: Claim, answer: bytes, prediction_id: str) -> None:
        """Keep a complete answer for replays, unless it was erased meanwhile."""
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
        """The request may have been carried out, and there is no answer to replay."""
        await self._end(claim, _change(claim).values(state=state))

    async def release(self, claim: Claim) -> None:
        """The next request runs."""
        await self._end(claim, _removal(claim))

    async def drain(self) -> None:
        """Wait until nothing is being written."""
        await self._batcher.drain()

    async def _end(self, claim: Claim, statement: Executable) -> None:
        """When this fails, the answer is an answer all the same: its key is taken until the lease
        ends, and spent afterwards.
        """

        try:
            async with asyncio.timeout(STORE_SECONDS):
                await self._batcher.submit(_execution(claim, statement))
        except (DatabaseUnavailable, TimeoutError) as error:
            log(logging.WARNING, "The end of an idempotent request was not written", error=error)

    def _abandoned(self, _: Operation, taken: Claim | Row[Any] | None) -> None:
        """Free a key that was taken for somebody who left meanwhile: nothing was begun."""
        if isinstance(taken, Claim):
            done = self._batcher.enqueue(_execution(taken, _removal(taken)))
            done.add_done_callback(lambda _: done.exception())  # it is spent with its lease then

    async def _write(
        self, operations: list[Operation]
    ) -> Sequence[Claim | Row[Any] | Exception | None]:
        # In one order everywhere, so that no two processes wait for each other.
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
            if not _is_lost(found):
                return found
            if begun := _states_of_attempts(connection, found):
                # One that is open is still to be settled, perhaps at nothing.
                is_ending = found.state == KeyState.LOST and not begun.isdisjoint(OPEN)
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
            # Another process was faster, and may have ended with an error since.
            return _find(connection, key, now) or in_flight()
        return claim


def in_flight() -> IdempotencyInFlight:
    return IdempotencyInFlight(
        "The first request with this Idempotency-Key still runs; try again later.",
        retry_after=RETRY_SECONDS,
    )


def erasing(prediction_id: str) -> Update:
    """Removes the stored answer of a prediction."""
    stored = idempotency.c.prediction_id == prediction_id
    return update(idempotency).where(stored).values(state=KeyState.ERASED, answer=None)


def _find(connection: Connection, key: IdempotencyKey, now: dt.datetime) -> Row[Any] | None:
    overdue = (idempotency.c.lease_until <= now).label("overdue")
    return connection.execute(select(idempotency, overdue).where(_is(key))).first()


def _is_lost(found: Row[Any]) -> bool:
    return bool(found.state == KeyState.LOST or (found.state == KeyState.RUNNING and found.overdue))


def _states_of_attempts(connection: Connection, found: Row[Any]) -> set[str]:
    """The states of what the request of a key may have sent; none if it began nothing, as every
    reservation is durable before a byte leaves.
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
    """Remove what has expired: the row of this key, and some of the others."""
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
