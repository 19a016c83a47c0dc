"""Identities of OAuth providers: a branch of its own, beside the line of all projects' tables."""

import sqlalchemy as sa
from alembic import op

revision = "identities_1"
down_revision = None
branch_labels = ("identities",)
depends_on = "0001"

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "identities",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("provider", sa.String(255), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("user_id", sa.String(40), nullable=False),
        sa.Column("admitted_by", sa.String(20), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_identities"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_identities_user_id_users"),
        sa.UniqueConstraint("provider", "subject", name="uq_identities_provider_subject"),
    )
    op.create_index("ix_identities_user_id", "identities", ["user_id"])
    op.create_table(
        "used_states",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("hash", name="pk_used_states"),
    )
    op.create_index("ix_used_states_expires_at", "used_states", ["expires_at"])


def downgrade() -> None:
    op.drop_table("used_states")
    op.drop_table("identities")
