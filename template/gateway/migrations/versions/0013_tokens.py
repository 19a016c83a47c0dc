"""Users: the version of their tokens, and whether they must verify their e-mail address."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    version = sa.Column("token_version", sa.Integer, nullable=False, server_default="0")
    verify = sa.Column("must_verify_email", sa.Boolean, nullable=False, server_default=sa.false())
    op.add_column("users", version)
    op.add_column("users", verify)


def downgrade() -> None:
    op.drop_column("users", "must_verify_email")
    op.drop_column("users", "token_version")
