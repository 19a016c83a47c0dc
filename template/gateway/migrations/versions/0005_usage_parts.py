"""The parts of what a generation used: cached input, cache writes, outputs billed by the piece."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

PARTS = ("cached_input_tokens", "cache_write_tokens", "outputs")


def upgrade() -> None:
    for name in PARTS:
        op.add_column(
            "predictions", sa.Column(name, sa.Integer, nullable=False, server_default="0")
        )


def downgrade() -> None:
    for name in reversed(PARTS):
        op.drop_column("predictions", name)
