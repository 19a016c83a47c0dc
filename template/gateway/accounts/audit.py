"""The audit of changes by operators. Each entry is written in the transaction of its change.

It identifies users by their ids, and the operator of the command line by the name on the machine.
It holds no e-mail address, credential or content.
"""

import os
import pwd
import socket
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert

from gateway.db.tables import MAX_OPERATOR, audit, utc_now
from gateway.ids import new_id

# The action that lifts stops and closes circuit breakers.
STARTED = "start"


class Actor(NamedTuple):
    """The author of a change: a user and the request, or the operator of the command line."""

    id: str | None = None
    request_id: str | None = None
    operator: str | None = None


def command_line() -> Actor:
    """The operator, as `USER@HOST` of this process. A user without a name is a number."""
    number = os.getuid()
    try:
        user = pwd.getpwuid(number).pw_name
    except KeyError:
        user = str(number)
    return Actor(operator=f"{user}@{socket.gethostname()}"[:MAX_OPERATOR])


def record(
    connection: Connection,
    actor: Actor,
    action: str,
    target: str,
    before: dict[str, Any] | None,
    after: dict[str, Any] | None,
) -> None:
    """Record a change of `target`, with the changed values `before` and `after` it."""
    entry = {
        "id": new_id("aud"),
        "at": utc_now(),
        "actor_id": actor.id,
        "action": action,
        "target": target,
        "before": before,
        "after": after,
        "request_id": actor.request_id,
        "operator": actor.operator,
    }
    connection.execute(insert(audit), entry)
