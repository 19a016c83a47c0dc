"""Why an attempt failed: the status and the reason that its provider gave."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("attempts", sa.Column("provider_status", sa.Integer))
    op.add_column("attempts", sa.Column("reason", sa.String(500)))


def downgrade() -> None:
    op.drop_column("attempts", "reason")
    op.drop_column("attempts", "provider_status")
