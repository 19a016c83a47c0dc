"""Deletes a user in small transactions. What the ledger needs stays, and names nobody.

All access ends first. The attempts and the accounts keep their sums, the predictions their costs,
all under an id that leads to no person any more. The audit stays; it names users by id. The e-mail
address goes last, so that an interrupted deletion is found again and goes on.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection, Row, delete, func, or_, select, update

from gateway.accounts.audit import Actor, record
from gateway.accounts.holdings import MAX_SECONDS, Holding, holdings_of
from gateway.accounts.sessions import end_access
from gateway.accounts.users import DELETED, require_other_admin
from gateway.db.engine import Database
from gateway.db.tables import accounts, attempts, audit, predictions, users, utc_now
from gateway.errors import NotFound
from gateway.idempotency.store import erasing
from gateway.ledger.batch import OPEN
from gateway.ledger.ledger import LOCK_TRIES
from gateway.ledger.records import ERASED
from gateway.ledger.transaction import take_lock

ROWS_AT_ONCE = 200
# Between two batches the ledger writes: a database may have one writer.
MIN_PAUSE_SECONDS = 0.01
WAIT_SECONDS = 0.2
# What is not deleted row by row.
KEPT = (users, predictions, attempts, accounts, audit)


class UserDeletion:
    """The deletion of a user. Its methods raise `DatabaseUnavailable`."""

    def __init__(self, database: Database, user: Row[Any]) -> None:
        self._database = database
        self._user = user
        every = [each for each in holdings_of(user) if each.table not in KEPT]
        self._deleted = every[::-1]  # Those that refer to others first.
        self._predictions = Holding(predictions, predictions.c.user_id == user.id)

    async def count(self) -> int:
        """The number of rows that the batches will pass."""
        every = [*self._deleted, self._predictions]
        return sum([await holding.size(self._database) for holding in every])

    async def begin(self, actor: Actor) -> None:
        """End all access, and record the deletion. Idempotent.

        The ledger makes no record for the user from then on, also for a call that was admitted
        before. Raises `NotFound` if the user was deleted meanwhile, and `Conflict` for the last
        administrator.
        """

        def work(connection: Connection) -> None:
            # First, so that the ledger sees the deletion, or the deletion sees the attempt.
            take_lock(connection, self._database)
            require_other_admin(connection, self._user.id)
            own = users.c.id == self._user.id
            row = connection.execute(select(users).where(own).with_for_update()).one_or_none()
            if row is None or row.email != self._user.email:
                raise NotFound("There is no such user.")
            now = utc_now()
            ended = {"disabled_at": row.disabled_at or now, "deleted_at": row.deleted_at or now}
            connection.execute(update(users).where(own).values(ended))
            end_access(connection, self._user.id, actor)
            if row.deleted_at is None:
                record(connection, actor, "delete", f"user:{self._user.id}", None, None)

        await self._database.retry_on_contention(lambda: self._database.transact(work), LOCK_TRIES)

    async def batches(self) -> AsyncGenerator[int, None]:
        """Do the work; after each batch, the number of rows that it passed."""
        for holding in self._deleted:
            while done := await self._transact(partial(_delete_some, holding=holding)):
                yield done
        async for done in self._erase_predictions():
            yield done
        await self._transact(self._forget)

    async def _erase_predictions(self) -> AsyncIterator[int]:
        """Erase all predictions, again and again while a call of the user runs."""
        while True:
            is_last = not await self._is_running()
            async for done in self._erase_once():
                yield done
            if is_last:
                return
            await asyncio.sleep(WAIT_SECONDS)

    async def _erase_once(self) -> AsyncIterator[int]:
        holding, last = self._predictions, ""
        while True:
            behind = select(predictions.c.id).where(holding.mine, predictions.c.id > last)
            some = behind.order_by(predictions.c.id).limit(ROWS_AT_ONCE)
            ids = [row.id for row in await self._database.fetch(some, seconds=MAX_SECONDS)]
            if not ids:
                return
            await self._transact(partial(_erase, ids=ids))
            last = ids[-1]
            yield len(ids)

    async def _is_running(self) -> bool:
        """Whether a call runs in a process that is alive. Few calls run at a time."""
        runs = attempts.c.state.in_(OPEN), attempts.c.lease_until > utc_now()
        rows = await self._database.fetch(select(attempts.c.user_id).where(*runs))
        return self._user.id in {row.user_id for row in rows}

    def _forget(self, connection: Connection) -> None:
        """Replace what identifies the person."""
        nothing = {column.name: None for column in users.c if column.nullable}
        kept = {"disabled_at": users.c.disabled_at, "deleted_at": users.c.deleted_at}
        email = f"{self._user.id}@{DELETED}"
        row = update(users).where(users.c.id == self._user.id)
        connection.execute(row.values({**nothing, **kept, "email": email, "role": "user"}))

    async def _transact(self, work: Callable[[Connection], Any]) -> Any:
        """The result of a batch, with a pause as long as the batch took."""
        started = time.monotonic()
        result = await self._database.transact(work, MAX_SECONDS)
        await asyncio.sleep(max(MIN_PAUSE_SECONDS, time.monotonic() - started))
        return result


def _delete_some(connection: Connection, holding: Holding) -> int:
    """Delete the next rows; returns how many."""
    keys = connection.execute(holding.keys((), ROWS_AT_ONCE)).all()
    if keys:
        connection.execute(delete(holding.table).where(holding.among([key[:-1] for key in keys])))
    return len(keys)


def _erase(connection: Connection, ids: Sequence[str]) -> None:
    """Erase the content of predictions, and what leads from them to the person elsewhere."""
    columns = predictions.c
    is_left = or_(
        columns.erased_at.is_(None), columns.idempotency_key.is_not(None), columns.request_id != ""
    )
    erased = {"erased_at": func.coalesce(columns.erased_at, utc_now()), **ERASED}
    links = {"idempotency_key": None, "request_id": ""}
    own = update(predictions).where(columns.id.in_(ids), is_left)
    connection.execute(own.values({**erased, **links}))
    ended = attempts.c.prediction_id.in_(ids), attempts.c.state.not_in(OPEN)
    connection.execute(update(attempts).where(*ended).values(remote_id=None, reason=None))
    connection.execute(erasing(ids))
