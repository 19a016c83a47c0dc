"""Passwords: a branch of its own, beside the line of the tables that every project has."""

import sqlalchemy as sa
from alembic import op

revision = "passwords_1"
down_revision = None
branch_labels = ("passwords",)
depends_on = "0001"


def upgrade() -> None:
    op.create_table(
        "passwords",
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("hash", sa.String(200), nullable=False),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_passwords"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_passwords_user_id_users"),
    )


def downgrade() -> None:
    op.drop_table("passwords")
