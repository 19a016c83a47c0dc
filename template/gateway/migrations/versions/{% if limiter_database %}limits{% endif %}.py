"""Limits: what was taken, who holds what. A branch of its own, as only some projects need it."""

import sqlalchemy as sa
from alembic import op

revision = "limits_1"
down_revision = None
branch_labels = ("limits",)
depends_on = "0001"


def upgrade() -> None:
    op.create_table(
        "limits",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_limits"),
    )
    op.create_index("ix_limits_until", "limits", ["until"])


def downgrade() -> None:
    op.drop_table("limits")
