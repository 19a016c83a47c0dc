"""The kill switch: stops calls of the service, a provider or a model.

The ledger reads the stops in each of its transactions, so that all replicas obey. A start also
closes circuit breakers: each process reads it from the audit.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from gateway.accounts.audit import STARTED, Actor, record
from gateway.db.engine import Database
from gateway.db.tables import stops, utc_now
from gateway.errors import InvalidRequest
from gateway.policy import Policy

SERVICE = "service"
MAX_REASON = 500


class KillSwitch:
    """Stops and starts the service, a provider or a model. Raises `InvalidRequest`.

    Without a policy, the only target is the service as a whole.
    """

    def __init__(self, database: Database, policy: Policy | None) -> None:
        self._database = database
        offered = policy.models.values() if policy else ()
        providers = {f"provider:{model.provider}" for model in offered}
        models = {f"model:{model.id}" for model in offered}
        self._targets = [SERVICE, *sorted(providers), *sorted(models)]

    async def all(self) -> Sequence[Row[Any]]:
        """The rows of all stopped and quarantined targets."""
        return await self._database.fetch(select(stops).order_by(stops.c.target, stops.c.kind))

    async def stop(self, target: str, reason: str, *, running: bool, actor: Actor) -> None:
        """Refuse all calls of `target` from now on. With `running`, also cancel running ones."""
        self._check(target, self._targets)
        if not (reason.isprintable() and 1 <= len(reason.strip()) <= MAX_REASON):
            raise InvalidRequest(
                f"The reason must be one line of 1 to {MAX_REASON} characters.", param="reason"
            )
        stopped = {"reason": reason.strip(), "running": running}

        def write(connection: Connection) -> None:
            before = [row for row in _of(connection, target) if row.kind == "stopped"]
            values = {**stopped, "actor_id": actor.id, "at": utc_now()}
            if before:
                own = stops.c.target == target, stops.c.kind == "stopped"
                connection.execute(update(stops).where(*own).values(**values))
            else:
                connection.execute(insert(stops).values(target=target, kind="stopped", **values))
            record(connection, actor, "stop", target, _state(before), {"stopped": stopped})

        try:
            await self._database.transact(write)
        except IntegrityError:  # Another operator stopped it at the same moment.
            await self._database.transact(write)

    async def start(self, target: str, actor: Actor) -> None:
        """Lift a stop, acknowledge a quarantine, and close the circuit breakers of `target`."""
        known = {row.target for row in await self.all()}
        self._check(target, [*self._targets, *sorted(known - set(self._targets))])

        def write(connection: Connection) -> None:
            before = _of(connection, target)
            connection.execute(delete(stops).where(stops.c.target == target))
            record(connection, actor, STARTED, target, _state(before), None)

        await self._database.transact(write)

    def _check(self, target: str, known: Sequence[str]) -> None:
        if target not in known:
            raise InvalidRequest(f"The target must be one of {', '.join(known)}.", param="target")


def _of(connection: Connection, target: str) -> Sequence[Row[Any]]:
    return connection.execute(
        select(stops).where(stops.c.target == target).order_by(stops.c.kind).with_for_update()
    ).all()


def _state(rows: Sequence[Row[Any]]) -> dict[str, Any] | None:
    """The stops in the format of the audit; None if there are none."""
    return {row.kind: {"reason": row.reason, "running": row.running} for row in rows} or None
