"""Budgets: what was spent and reserved by period, what is stopped, and which alerts are due."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


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
    op.add_column("attempts", sa.Column("plan", sa.String(100)))
    op.add_column("attempts", sa.Column("key_id", sa.String(40)))


def downgrade() -> None:
    for column in ("plan", "key_id"):
        op.drop_column("attempts", column)
    for table in ("alerts", "stops", "policies", "accounts"):
        op.drop_table(table)
