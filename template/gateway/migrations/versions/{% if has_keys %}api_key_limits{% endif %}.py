"""API keys: limits and budgets of their own."""

import sqlalchemy as sa
from alembic import op

revision = "api_keys_2"
down_revision = "api_keys_1"
branch_labels = None
depends_on = None

RATES = ("requests_per_minute", "tokens_per_minute", "concurrent_generations")
BUDGETS = ("daily_budget_nano_usd", "monthly_budget_nano_usd")


def upgrade() -> None:
    for name in RATES:
        op.add_column("api_keys", sa.Column(name, sa.Integer))
    for name in BUDGETS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger))


def downgrade() -> None:
    for name in (*RATES, *BUDGETS):
        op.drop_column("api_keys", name)
