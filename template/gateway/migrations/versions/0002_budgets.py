"""Budgets: what was spent and reserved by period, what is stopped, and which alerts are due."""

from itertools import product

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)
ATTEMPTS = sa.table(
    "attempts",
    sa.column("user_id", sa.String),
    sa.column("day", sa.String),
    sa.column("cost_nano_usd", sa.BigInteger),
)


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("spent_nano_usd", sa.BigInteger, nullable=False),
        sa.Column("reserved_nano_usd", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", "period", name="pk_accounts"),
    )
    policies = op.create_table(
        "policies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("version", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_policies"),
    )
    op.bulk_insert(policies, [{"id": 1, "version": ""}])
    op.create_table(
        "stops",
        sa.Column("target", sa.String(240), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("running", sa.Boolean, nullable=False),
        sa.Column("actor_id", sa.String(40)),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("target", "kind", name="pk_stops"),
    )
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(240), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_alerts"),
    )
    for account, period in product(_accounts(), _periods()):
        _carry_over(account, period)
    op.add_column("attempts", sa.Column("plan", sa.String(100)))
    op.add_column("attempts", sa.Column("key_id", sa.String(40)))


def _accounts() -> tuple[sa.ColumnElement[str], ...]:
    return sa.literal("service"), sa.literal("user:") + ATTEMPTS.c.user_id


def _periods() -> tuple[sa.ColumnElement[str], ...]:
    return ATTEMPTS.c.day, sa.func.substr(ATTEMPTS.c.day, 1, 7)


def _carry_over(account: sa.ColumnElement[str], period: sa.ColumnElement[str]) -> None:
    """What was spent before there were budgets counts."""
    spent = sa.func.sum(ATTEMPTS.c.cost_nano_usd)
    sums = sa.select(account.label("account"), period.label("period"), spent, sa.literal(0))
    names = ["name", "period", "spent_nano_usd", "reserved_nano_usd"]
    accounts = sa.table("accounts", *(sa.column(name) for name in names))
    op.execute(sa.insert(accounts).from_select(names, sums.group_by("account", "period")))


def downgrade() -> None:
    for column in ("plan", "key_id"):
        op.drop_column("attempts", column)
    for table in ("alerts", "stops", "policies", "accounts"):
        op.drop_table(table)
