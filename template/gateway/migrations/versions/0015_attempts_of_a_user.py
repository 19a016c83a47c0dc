"""The index by which a user's attempts are read in pages, instead of one that no query uses."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_user_id_id", "attempts", ["user_id", "id"])
    op.drop_index("ix_attempts_user_id_day", "attempts")


def downgrade() -> None:
    op.create_index("ix_attempts_user_id_day", "attempts", ["user_id", "day"])
    op.drop_index("ix_attempts_user_id_id", "attempts")
