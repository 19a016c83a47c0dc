"""The tables of billing by Stripe."""

import sqlalchemy as sa
from alembic import op

revision = "billing"
down_revision = "app_0"
branch_labels = None
depends_on = "0014"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "billing_customers",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("customer_id", sa.String(255), nullable=False),
        sa.Column("subscription_id", sa.String(255)),
        sa.Column("status", sa.String(40)),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_billing_customers"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_billing_customers_user_id_users"
        ),
        sa.UniqueConstraint("customer_id", name="uq_billing_customers_customer_id"),
    )
    op.create_table(
        "billing_events",
        sa.Column("id", sa.String(255), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_billing_events"),
    )
    op.create_index("ix_billing_events_received_at", "billing_events", ["received_at"])
    op.create_table(
        "billing_reports",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("reported_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("user_id", "day", name="pk_billing_reports"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_billing_reports_user_id_users"),
    )


def downgrade() -> None:
    for table in ("billing_reports", "billing_events", "billing_customers"):
        op.drop_table(table)
