"""The tables. `Database` chooses their schema."""

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
    Select,
    String,
    Table,
    Text,
    TextClause,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

from gateway.json_text import encode

MAX_OPERATOR = 200
# Most predictions are neither, so an index of these is small.
HAS_FAILED, IS_RATED = text("outcome <> 'ok'"), text("rating IS NOT NULL")
# Most rows have no team: they are not in the index.
IN_TEAM = text("team_id IS NOT NULL")
# The execution option of a query with the user for whom it reads.
FOR_USER = "for_user"
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A time in UTC. The database may store it without a zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        return value.astimezone(dt.UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        return value.replace(tzinfo=value.tzinfo or dt.UTC).astimezone(dt.UTC) if value else None


class Json(TypeDecorator[Any]):
    """A JSON document, stored as text, which can hold every string of JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        return None if value is None else encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        return None if value is None else from_json(value)


def owner() -> Column[str]:
    """The column of a row's user. Every query for a user's rows filters by it."""
    return Column("user_id", String(40), ForeignKey("users.id"), nullable=False)


def _partial_index(condition: TextClause, *columns: str) -> Index:
    """An index of the rows that meet `condition`, which a query has to name."""
    return Index(None, *columns, sqlite_where=condition, postgresql_where=condition)


# `plan` names a team plan of plans.toml. A team is never deleted: the ledger refers to it.
teams = Table(
    "teams",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("name", String(100), nullable=False),
    Column("plan", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    info={"prefix": "team"},
)


def for_user(query: Select[Any], user_id: str) -> Select[Any]:
    """The query on behalf of a user. A database that checks it shows no other user's rows.

    Not every database does, so the query filters by the user all the same.
    """
    return query.execution_options(**{FOR_USER: user_id})


users = Table(
    "users",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("email", String(320), nullable=False, unique=True),
    Column("role", String(20), nullable=False),
    Column("plan", String(100), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("disabled_at", UtcDateTime),
    # Higher budgets, up to this UTC day.
    Column("raised_daily_nano_usd", BigInteger),
    Column("raised_monthly_nano_usd", BigInteger),
    Column("raised_until", String(10)),
    # When a deletion began. At its end, the e-mail address is none.
    Column("deleted_at", UtcDateTime),
    # Without a foreign key, which not every database can remove in a downgrade.
    Column("team_id", String(40)),
    Column("team_role", String(20)),
    Index(None, "team_id"),
    # What was handed out under an earlier version is no longer accepted.
    Column("token_version", Integer, nullable=False, server_default="0"),
    # Without a verified e-mail address there is no generation.
    Column("must_verify_email", Boolean, nullable=False, server_default=false()),
    info={"prefix": "usr"},
)

# Browser sessions: `key_id` is the API key that one was made with, if any.
sessions = Table(
    "sessions",
    metadata,
    Column("id", String(40), primary_key=True),
    # Only the hash of the token, which is in the browser's cookie.
    Column("token_hash", String(64), nullable=False, unique=True),
    owner(),
    Column("key_id", String(40)),
    Column("scopes", Json, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index(None, "user_id", "id"),
    Index(None, "key_id"),
    Index(None, "expires_at"),
    info={"prefix": "ses"},
)

# Invitations to a team by e-mail address, one for each address; accepted ones are deleted.
team_invitations = Table(
    "team_invitations",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("team_id", String(40), ForeignKey("teams.id"), nullable=False),
    Column("email", String(320), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    UniqueConstraint("team_id", "email"),
    Index(None, "email"),
    info={"prefix": "inv"},
)

# One row for each generation: its request, its result and its cost.
predictions = Table(
    "predictions",
    metadata,
    Column("id", String(40), primary_key=True),
    owner(),
    Column("request_id", String(64), nullable=False),
    Column("idempotency_key", String(255)),
    Column("kind", String(20), nullable=False),
    # The part of the application that made the request; none for the built-in routes.
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
    # That of the feedback, for searches.
    Column("rating", String(10)),
    # The UTC day of the request, for which it counts.
    Column("day", String(10), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("finished_at", UtcDateTime),
    Column("erased_at", UtcDateTime),
    # The team of the user at that time.
    Column("team_id", String(40)),
    Index(None, "user_id", "id"),
    Index(None, "user_id", "day"),
    # For searches: see `gateway/ledger/search.py`.
    Index(None, "model", "id"),
    Index(None, "user_id", "model", "id"),
    _partial_index(HAS_FAILED, "outcome", "id"),
    _partial_index(HAS_FAILED, "user_id", "outcome", "id"),
    _partial_index(IS_RATED, "rating", "id"),
    _partial_index(IS_RATED, "user_id", "rating", "id"),
    _partial_index(IN_TEAM, "team_id", "id"),
    info={"prefix": "pred"},
)

# The ledger: one row for each call of a provider, written before its first byte is sent. `state` is
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
    # The provider's id of work that runs on without a connection.
    Column("remote_id", String(200)),
    Column("day", String(10), nullable=False),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("lease_until", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    # The provider's status and message for a failed attempt, without the caller's content.
    Column("provider_status", Integer),
    Column("reason", String(500)),
    # The plan, the key and the team whose budgets it counts against, besides the user's and the
    # service's.
    Column("plan", String(100)),
    Column("key_id", String(40)),
    Column("team_id", String(40)),
    Index(None, "prediction_id"),
    Index(None, "user_id", "id"),
    Index(None, "state", "lease_until"),
)

# The spent and the reserved amounts, by account (`service`, `plan:free`, `team:team_…`,
# `user:usr_…`, `key:key_…`) and period (a UTC day or month). They equal the sums over the attempts
# of that period.
accounts = Table(
    "accounts",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("period", String(10), primary_key=True),
    Column("spent_nano_usd", BigInteger, nullable=False, default=0),
    Column("reserved_nano_usd", BigInteger, nullable=False, default=0),
)

# One row, which a migration inserts. A transaction needs its lock to change accounts.
# `version` is for replicas of earlier versions of the service, which write and compare it.
policies = Table(
    "policies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", String(64), nullable=False),
)

# Stopped targets: `service`, `provider:openai`, `model:openai/gpt-5-mini`. `kind` is stopped (by a
# person) or quarantined (a call exceeded its maximum); with `running`, running calls end too.
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

# Alerts for the owner, each written in the transaction of its cause, and sent once.
alerts = Table(
    "alerts",
    metadata,
    Column("id", String(240), primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("details", Json, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    # When it was logged and counted, and when to post it again if the last try failed.
    Column("told_at", UtcDateTime),
    Column("next_try_at", UtcDateTime),
    # Alerts that are not yet logged or sent are polled, among all earlier ones.
    Index(None, "told_at"),
    Index(None, "sent_at"),
)

# The audit: one row for each change by an operator, written in its transaction and never modified,
# which triggers of the database enforce.
# Without an actor, `operator` made the change on the command line.
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
    Index(None, "actor_id", "id"),
    Index(None, "target", "id"),
    info={"prefix": "aud"},
)


# The background jobs that one replica does at a time, and how far each has come: an id. The
# migration that adds a job inserts its row.
jobs = Table(
    "jobs",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("cursor", String(40), nullable=False),
)


def utc_now() -> dt.datetime:
    """The current time in UTC."""
    return dt.datetime.now(dt.UTC)


def moment(microseconds: int) -> dt.datetime:
    """The time of a database's clock in microseconds since 1970."""
    return dt.datetime.fromtimestamp(microseconds / 1e6, dt.UTC)
