"""Accounts of Supabase: a branch of its own, beside the line of the common tables."""

import sqlalchemy as sa
from alembic import op

revision = "supabase_users_1"
down_revision = None
branch_labels = ("supabase_users",)
depends_on = "0001"


def upgrade() -> None:
    op.create_table(
        "supabase_users",
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("token_role", sa.String(20), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_supabase_users"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_supabase_users_user_id_users"),
    )


def downgrade() -> None:
    op.drop_table("supabase_users")
