"""Which feature of the application asked for a prediction."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("feature", sa.String(100)))


def downgrade() -> None:
    op.drop_column("predictions", "feature")
