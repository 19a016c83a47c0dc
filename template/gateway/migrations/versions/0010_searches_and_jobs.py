"""Indexes for searches of predictions, and the background jobs that one replica does at a time."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

WHOLE = (["model", "id"], ["user_id", "model", "id"])
# Of each, the condition of its rows.
PARTIAL = (
    (["outcome", "id"], "outcome <> 'ok'"),
    (["user_id", "outcome", "id"], "outcome <> 'ok'"),
    (["rating", "id"], "rating IS NOT NULL"),
    (["user_id", "rating", "id"], "rating IS NOT NULL"),
)
PREDICTIONS = sa.table(
    "predictions", sa.column("rating", sa.String), sa.column("feedback", sa.Text)
)
UPDATE = sa.update(PREDICTIONS)


def upgrade() -> None:
    jobs = op.create_table(
        "jobs",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("cursor", sa.String(40), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_jobs"),
    )
    op.bulk_insert(jobs, [{"name": "retention", "cursor": ""}])
    op.add_column("predictions", sa.Column("rating", sa.String(10)))
    rated = PREDICTIONS.c.feedback
    # The rating is the first field of the document.
    op.execute(UPDATE.where(rated.startswith('{"rating":"up"')).values(rating="up"))
    op.execute(UPDATE.where(rated.startswith('{"rating":"down"')).values(rating="down"))
    for columns in WHOLE:
        op.create_index(_name(columns), "predictions", columns)
    for columns, condition in PARTIAL:
        where = sa.text(condition)
        op.create_index(
            _name(columns), "predictions", columns, sqlite_where=where, postgresql_where=where
        )


def _name(columns: list[str]) -> str:
    return f"ix_predictions_{'_'.join(columns)}"


def downgrade() -> None:
    for columns in (*WHOLE, *(columns for columns, _ in PARTIAL)):
        op.drop_index(_name(columns), "predictions")
    op.drop_column("predictions", "rating")
    op.drop_table("jobs")
