"""Rows that tests insert as history."""

import datetime as dt
from typing import Any

from sqlalchemy import Insert, insert

from gateway.db.tables import accounts, predictions
from gateway.ids import id_at, new_id
from tests.support import User


def account(name: str, period: str, spent: int, reserved: int = 0) -> Insert:
    """What an account holds in a period, in nano-dollars."""
    held = {"spent_nano_usd": spent, "reserved_nano_usd": reserved}
    return insert(accounts).values(name=name, period=period, **held)


def prediction(user: User, at: dt.datetime, **values: Any) -> Insert:
    """A prediction that was created `at` this time."""
    made = {
        # What `new_id` would have made at that time.
        "id": id_at("pred", at) + new_id("")[-20:],
        "user_id": user.id,
        "request_id": "req_x",
        "kind": "chat",
        "model": "offline/echo",
        "status": "running",
        "day": at.date().isoformat(),
        "created_at": at,
    }
    return insert(predictions).values(**(made | values))
