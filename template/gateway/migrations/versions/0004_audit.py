"""The audit of who changed what, and how often an alert was told."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("actor_id", sa.String(40)),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("target", sa.String(240), nullable=False),
        sa.Column("before", sa.Text),
        sa.Column("after", sa.Text),
        sa.Column("request_id", sa.String(64)),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.add_column("alerts", sa.Column("told_at", TIME))
    op.add_column("alerts", sa.Column("next_try_at", TIME))
    for column in ("told_at", "sent_at"):
        op.create_index(f"ix_alerts_{column}", "alerts", [column])


def downgrade() -> None:
    for column in ("told_at", "sent_at"):
        op.drop_index(f"ix_alerts_{column}", "alerts")
    for column in ("next_try_at", "told_at"):
        op.drop_column("alerts", column)
    op.drop_table("audit")
