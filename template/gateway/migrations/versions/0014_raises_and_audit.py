"""Raised budgets of users, and an audit that only grows."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

CONTRACT = "audit: no version has changed or deleted an entry"
COLUMNS = (
    ("raised_daily_nano_usd", sa.BigInteger),
    ("raised_monthly_nano_usd", sa.BigInteger),
    ("raised_until", sa.String(10)),
)


def upgrade() -> None:
    for name, kind in COLUMNS:
        op.add_column("users", sa.Column(name, kind))
    if op.get_bind().dialect.name == "postgresql":
        _protect_on_a_server()
    else:
        _protect_in_a_file()


def _protect_on_a_server() -> None:
    op.execute(
        "CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'the audit only grows'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_only_grows BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )


def _protect_in_a_file() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER audit_refuses_{change.lower()} BEFORE {change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END"
        )


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_only_grows ON audit")
        op.execute("DROP FUNCTION refuse_change()")
    else:
        for change in ("update", "delete"):
            op.execute(f"DROP TRIGGER audit_refuses_{change}")
    for name, _ in COLUMNS:
        op.drop_column("users", name)
