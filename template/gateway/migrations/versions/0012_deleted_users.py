"""When a user was deleted, and indexes to find what the audit holds of a user."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

INDEXES = (["actor_id", "id"], ["target", "id"])


def upgrade() -> None:
    op.add_column("users", sa.Column("deleted_at", sa.DateTime(timezone=True)))
    for columns in INDEXES:
        op.create_index(f"ix_audit_{'_'.join(columns)}", "audit", columns)


def downgrade() -> None:
    for columns in INDEXES:
        op.drop_index(f"ix_audit_{'_'.join(columns)}", "audit")
    op.drop_column("users", "deleted_at")
