"""The audit: who changed what for others, written in the transaction that changes it.

It names people by their ids, and holds no address, credential or content.
"""

from typing import Any, NamedTuple

from sqlalchemy import Connection, insert

from app.db.tables import audit, utc_now
from app.ids import new_id

# The action by which stops and cooldowns are lifted.
STARTED = "start"


class Actor(NamedTuple):
    """Who does it, and by which request."""

    id: str | None
    request_id: str | None


# Whoever has a shell where the service runs.
COMMAND_LINE = Actor(None, None)


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    """Note a change of `target`: what of it was so `before`, and what it is `after`."""
    entry = {
        "id": new_id("aud"),
        "at": utc_now(),
        "actor_id": actor.id,
        "action": action,
        "target": target,
        "before": before,
        "after": after,
        "request_id": actor.request_id,
    }
    connection.execute(insert(audit), entry)
