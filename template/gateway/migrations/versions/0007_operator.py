"""Who used the command line, in the audit."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("audit", sa.Column("operator", sa.String(200)))


def downgrade() -> None:
    op.drop_column("audit", "operator")
