"""The audit: who changed what for others, written in the transaction that changes it.

It names people by their ids, and the operator of the command line as the machine does. It holds no
e-mail address, credential or content.
"""

import os
import pwd
import socket
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert

from gateway.db.tables import MAX_OPERATOR, audit, utc_now
from gateway.ids import new_id

# The action by which stops and cooldowns are lifted.
STARTED = "start"


class Actor(NamedTuple):
    """A user and the request, or the operator of the command line."""

    id: str | None = None
    request_id: str | None = None
    operator: str | None = None


def command_line() -> Actor:
    """The user of the machine whose process this is, as `USER@HOST`: the number of a user without
    a name.
    """
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
        "operator": actor.operator,
    }
    connection.execute(insert(audit), entry)
