"""Where your migrations start: it changes nothing. docs/add-a-table.md adds one."""

revision = "app_0"
down_revision = None
branch_labels = ("app",)
depends_on = "0001"


def upgrade() -> None:
    """Nothing: your first migration does."""


def downgrade() -> None:
    """Nothing."""
