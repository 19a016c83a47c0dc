"""Leases: which process serves alone. A branch of its own, as only some projects need it."""

import sqlalchemy as sa
from alembic import op

revision = "leases_1"
down_revision = None
branch_labels = ("leases",)
depends_on = "0001"


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("holder", sa.String(40), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_leases"),
    )


def downgrade() -> None:
    op.drop_table("leases")
