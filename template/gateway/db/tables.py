"""The tables; in which schema they live is the database's business."""

import datetime as dt
from typing import Any

from pydantic_core import from_json
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from gateway.json_text import encode

MAX_OPERATOR = 200
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A point in time, always in UTC; the database may keep no zone of its own."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        return value.astimezone(dt.UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        return value.replace(tzinfo=value.tzinfo or dt.UTC).astimezone(dt.UTC) if value else None


class Json(TypeDecorator[Any]):
    """A JSON document as text, so that any string that JSON can hold can be kept."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else from_json(value)


def owner() -> Column[str]:
    """Whose row it is; every query for a user's rows names it."""
    return Column("user_id", String(40), ForeignKey("users.id"), nullable=False)


users = Table(
    "users",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("email", String(320), nullable=False, unique=True),
    Column("role", String(20), nullable=False),
    Column("plan", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    info={"prefix": "usr"},
)

# One row for each generation: what was asked, what came of it, what it cost.
predictions = Table(
    "predictions",
    metadata,
    Column("id", String(40), primary_key=True),
    owner(),
    Column("request_id", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("kind", String(20), nullable=False),
    # What of the application asked for it; none for the built-in routes.
    Column("feature", String(100)),
    Column("model", String(200), nullable=False),
    Column("served_model", String(200)),
    Column("provider", String(40)),
    Column("status", String(20), nullable=False),
    Column("outcome", String(20)),
    Column("input", Json),
    Column("output", Json),
    Column("error", Json),
    Column("input_tokens", Integer, nullable=False, default=0),
    Column("output_tokens", Integer, nullable=False, default=0),
    Column("microseconds", BigInteger, nullable=False, default=0),
    # Parts of the input; a version without them writes none.
    Column("cached_input_tokens", Integer, nullable=False, server_default="0"),
    Column("cache_write_tokens", Integer, nullable=False, server_default="0"),
    # What is billed by the piece.
    Column("outputs", Integer, nullable=False, server_default="0"),
    Column("cost_nano_usd", BigInteger, nullable=False, default=0),
    Column("latency_ms", Integer),
    Column("feedback", Json),
    # The UTC day that it counts for, fixed when it was asked.
    Column("day", String(10), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("erased_at", UtcDateTime),
    Index(None, "user_id", "id"),
    Index(None, "user_id", "day"),
    info={"prefix": "pred"},
)

# The ledger: one row for each call of a provider, written before a byte leaves. `state` is
# reserved, sent (`remote_id` is known), settled, released (nothing was billed) or uncertain
# (settled at its bound).
attempts = Table(
    "attempts",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("prediction_id", String(40), ForeignKey("predictions.id"), nullable=False),
    owner(),
    Column("number", Integer, nullable=False),
    Column("provider", String(40), nullable=False),
    Column("model", String(200), nullable=False),
    Column("state", String(20), nullable=False),
    Column("bound_nano_usd", BigInteger, nullable=False),
    Column("cost_nano_usd", BigInteger, nullable=False, default=0),
    Column("price", Json, nullable=False),
    # The provider's own id of the work, where it runs on without us.
    Column("remote_id", String(200)),
    Column("day", String(10), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    # What the provider answered to an attempt that failed, in its own words without the caller's.
    Column("provider_status", Integer),
    Column("reason", String(500)),
    # Whose budgets it counts against, beside its owner's and the service's.
    Column("plan", String(100)),
    Column("key_id", String(40)),
    Index(None, "prediction_id"),
    Index(None, "user_id", "day"),
    Index(None, "state", "lease_until"),
)

# What was spent and is reserved, by account (`service`, `plan:free`, `user:usr_…`, `key:key_…`) and
# period (a UTC day or month). It always equals the sums over the attempts of that period.
accounts = Table(
    "accounts",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("spent_nano_usd", BigInteger, nullable=False, default=0),
    Column("reserved_nano_usd", BigInteger, nullable=False, default=0),
)

# One row, which a migration inserts. A transaction that holds its lock may change accounts.
# `version` is for replicas of earlier versions of the service, which write and compare it.
policies = Table(
    "policies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String(64), nullable=False),
)

# What may not be called: `service`, `provider:openai`, `model:openai/gpt-5-mini`. `kind` is stopped
# (by a person) or quarantined (a call exceeded its maximum). With `running`, running calls end.
stops = Table(
    "stops",
    metadata,
    Column("target", String(240), primary_key=True),
    Column("kind", String(20), primary_key=True),
    Column("reason", String(500), nullable=False),
    Column("running", Boolean, nullable=False, default=False),
    Column("actor_id", String(40)),
    Column("at", UtcDateTime, nullable=False),
)

# What the owner must hear of, once: written with what caused it, `sent_at` when it was told.
alerts = Table(
    "alerts",
    metadata,
    Column("id", String(240), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("details", Json, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    # When it was logged and counted, and when it may be posted again: its last try may have failed.
    Column("told_at", UtcDateTime),
    Column("next_try_at", UtcDateTime),
    # Looked for all the time, among all that there ever were.
    Index(None, "told_at"),
    Index(None, "sent_at"),
)

# Who changed what for others: one row for each change, written with it, and never changed itself.
# Without an actor it was the command line, used by `operator`.
audit = Table(
    "audit",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor_id", String(40)),
    Column("action", String(40), nullable=False),
    Column("target", String(240), nullable=False),
    Column("before", Json),
    Column("after", Json),
    Column("request_id", String(64)),
    Column("operator", String(MAX_OPERATOR)),
    info={"prefix": "aud"},
)


def utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def moment(microseconds: int) -> dt.datetime:
    """What a database's clock says, in microseconds since 1970, as a time."""
    return dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC)
